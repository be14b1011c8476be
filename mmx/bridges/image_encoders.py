"""Frozen image encoders that bridges from pictures look with: an image decoder's teacher, or a vision model of the
transformers library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from mmx.bridges.audio_encoders import kind_of
from mmx.compat import quiet_libraries  # first: torchaudio must be mended before transformers is imported
from mmx.decoders.base import fingerprint, freeze
from mmx.decoders.gan import space_of
from mmx.decoders.teacher import Teacher, pixels_of
from mmx.errors import ModelError
from mmx.models.store import Located

KINDS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model", "dinov2", "vit")


class ImageEncoder(Protocol):
    """network: what it computes with. name, fingerprint: which it is, by its folder and by the sha256 of its weights;
    size: pixels of a side of what is looked at; width: C of a patch.
    """

    network: nn.Module
    name: str
    fingerprint: str
    size: int
    width: int
    device: torch.device

    def look(self, pictures: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size → patches (B, P, C), float32."""

    def both_ways(self, picture: Image.Image) -> Tensor:
        """A picture → the patches of it and of its mirror image (2, P, C)."""


class TeacherEncoder:
    """The last feature map of an image decoder's teacher."""

    def __init__(self, teacher: Teacher, name: str, fingerprint: str) -> None:
        self.teacher, self.name, self.fingerprint = teacher, name, fingerprint
        self.network = teacher.net
        self.size = teacher.net.image_size
        self.width = teacher.net.image_encoder.widths[-1]
        self.device = teacher.device

    def look(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self._patches(torch.stack([pixels_of(picture, self.size) for picture in pictures]))

    def both_ways(self, picture: Image.Image) -> Tensor:
        pixels = pixels_of(picture, self.size)
        return self._patches(torch.stack((pixels, pixels.flip(2))))

    def _patches(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] → patches (B, P, C)."""
        seen = self.teacher.net.feature_maps(pixels.to(self.device))[-1]
        return seen.float().flatten(2).transpose(1, 2)


class PretrainedEncoder:
    """The last layer of a vision transformer, its class token among the patches where it has one."""

    def __init__(self, model, processor, name: str, fingerprint: str) -> None:
        self.model, self.processor, self.name, self.fingerprint = freeze(model), processor, name, fingerprint
        self.network = self.model
        self.size, self.width, self.device = model.config.image_size, model.config.hidden_size, model.device

    def look(self, pictures: Sequence[Image.Image]) -> Tensor:
        inputs = self.processor(images=list(pictures), return_tensors="pt")
        return self.model(pixel_values=inputs["pixel_values"].to(self.device)).last_hidden_state.float()

    def both_ways(self, picture: Image.Image) -> Tensor:
        return self.look([picture, ImageOps.mirror(picture)])


def open_image_encoder(at: Located, device: str = "cpu") -> ImageEncoder:
    """Read an image decoder's folder or that of a transformers vision model. Raises ModelError."""
    if (at.folder / "teacher").is_dir():
        teacher = Teacher.load(at.folder / "teacher")
        teacher.net.to(device)
        return TeacherEncoder(teacher, at.name, space_of(at.folder))
    from transformers import AutoImageProcessor, AutoModel

    kind = kind_of(at.folder)
    if kind not in KINDS:
        raise ModelError(
            f"{at.name} is a {kind} model", hint=f"what looks is an image decoder of mmx, or one of {', '.join(KINDS)}"
        )
    quiet_libraries("transformers")
    try:
        model = AutoModel.from_pretrained(at.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(at.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{at.name}: the encoder can't be loaded: {str(error).splitlines()[0]}") from None
    # CLIP and SigLIP read texts, too, which nobody asks here
    vision = getattr(model, "vision_model", model).to(device)
    return PretrainedEncoder(vision, processor, at.name, fingerprint(at.folder, (".",)))
