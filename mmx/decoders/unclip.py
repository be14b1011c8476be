"""The image decoder: an unCLIP diffusion model in a diffusers Kandinsky 2.2 folder, with its teacher beside it.

A face decoder is the same thing with another teacher: its conditioning is a face's feature.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.compat import quiet_libraries
from mmx.decoders.base import ConditioningSpec, fingerprint, freeze, keep_small
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.teacher import Teacher
from mmx.errors import ModelError, NonFiniteError, UsageError
from mmx.models.store import Located

PARTS = ("unet", "movq", "scheduler", "teacher")
SPACE = (
    "teacher",
)  # what a bridge depends on: the space. A decoder that was trained longer in the same space still fits


TEACHERS = {"image": Teacher, "face": FaceTeacher}


class ImageDecoder:
    """A `KandinskyV22Pipeline` driven by image embeddings alone; the negative is the embedding of a black image."""

    def __init__(
        self, pipeline, teacher: Teacher | FaceTeacher, spec: ConditioningSpec, defaults: dict[str, Any]
    ) -> None:
        self.pipeline, self.teacher, self.spec, self.defaults = pipeline, teacher, spec, defaults
        pipeline.set_progress_bar_config(disable=True)
        freeze(pipeline.unet)
        freeze(pipeline.movq)
        black = Image.new("RGB", (defaults["size"],) * 2)
        self.negative = teacher.embed_images([black])

    @property
    def device(self) -> torch.device:
        return self.pipeline.unet.device

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> ImageDecoder:
        """Move every part to a device; the diffusion model computes in `dtype`, the small teacher in float32."""
        self.pipeline.to(device, dtype)
        self.teacher.net.to(device)
        self.negative = self.negative.to(device)
        return self

    def targets(self, media: Sequence[Image.Image]) -> Tensor:
        """RGB pictures → raw embeddings (B, D)."""
        return self.teacher.embed_images(media)

    @torch.inference_mode()
    def decode(
        self,
        conditioning: Tensor,
        *,
        generators: Sequence[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> list[Image.Image]:
        """Raw embeddings (B, D) → B pictures of `size` pixels a side.

        steps: denoising steps. guidance: classifier-free guidance scale, 1 is none. Noise is drawn on the CPU from
        one generator an item. On the CPU items are decoded one by one, because a matrix product's last bits depend on the batch
        it is in: an item's bytes don't depend on its neighbours.
        """
        size = size or self.defaults["size"]
        side = self.pipeline.movq_scale_factor  # the pipeline makes latents in multiples of this many a side
        patch = getattr(self.pipeline.movq.config, "up_down_scale_factor", side)  # pixels a latent
        unit = side * patch
        if size % unit or size < unit:
            raise UsageError(
                f"--size {size} does not fit this decoder",
                hint=f"give a multiple of {unit}; it was trained at {self.defaults['size']}",
            )
        chunk = 1 if self.device.type == "cpu" else len(conditioning)
        pictures: list[Image.Image] = []
        for start in range(0, len(conditioning), chunk):
            part = conditioning[start : start + chunk].to(self.device, self.pipeline.unet.dtype)
            output = self.pipeline(
                image_embeds=part,
                negative_image_embeds=self.negative.expand(len(part), -1).to(part.dtype),
                height=size // patch * side,
                width=size // patch * side,
                num_inference_steps=steps or self.defaults["steps"],
                guidance_scale=self.defaults["guidance"] if guidance is None else guidance,
                generator=list(generators[start : start + chunk]),
                output_type="pt",
            ).images
            pictures += finite_pictures(output.permute(0, 2, 3, 1))
        return pictures

    @classmethod
    def load(cls, at: Located | Path) -> ImageDecoder:
        """Read a decoder folder. Raises ModelError when it is not one."""
        from diffusers import KandinskyV22Pipeline

        folder = at if isinstance(at, Path) else at.folder
        about = folder / "mmx.json"
        if not about.exists():
            raise ModelError(
                f"{folder} is not an image decoder: it has no mmx.json", hint="mmx train-decoder image makes one"
            )
        settings = json.loads(about.read_text(encoding="utf8"))
        if settings["family"] not in TEACHERS:
            raise ModelError(f"{folder} is a {settings['family']} decoder, and pictures are asked for")
        quiet_libraries()
        importlib.import_module(PAELLA)  # diffusers takes a module that model_index.json names only if it is imported
        pipeline = KandinskyV22Pipeline.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.movq.to(memory_format=torch.channels_last)
        spec = ConditioningSpec.from_dict(settings["spec"] | {"fingerprint": fingerprint(folder, SPACE)})
        return cls(pipeline, TEACHERS[settings["family"]].load(folder / "teacher"), spec, settings["defaults"])


PAELLA = "diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model"


def _name_codec_module(folder: Path) -> None:
    """diffusers writes that the Paella autoencoder is in its top-level module, where it is not; say where it is."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf8"))
    if index["movq"] == ["diffusers", "PaellaVQModel"]:
        index["movq"] = [PAELLA, "PaellaVQModel"]
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf8")


def save_image_decoder(
    folder: Path,
    pipeline,
    teacher: Teacher | FaceTeacher,
    *,
    name: str,
    mean_norm: float,
    defaults: dict[str, Any],
    teacher_folder: Path | None = None,
) -> None:
    """Write the folder that `ImageDecoder.load`, and plain diffusers, read. Weights are stored as float16, the matrices of what draws as float8.

    teacher_folder: where the teacher was loaded from, copied as it is, so that its space keeps its fingerprint.
    """
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _name_codec_module(folder)
    for part in ("unet", "movq"):
        keep_small(folder / part / "diffusion_pytorch_model.safetensors")
    pipeline.to(dtype=torch.float32)
    if teacher_folder is None:
        teacher.save(folder / "teacher")
    else:
        shutil.copytree(teacher_folder, folder / "teacher", dirs_exist_ok=True)
    spec = ConditioningSpec(name, (teacher.net.dim,), mean_norm, fingerprint(folder, SPACE))
    family = next(name for name, kind in TEACHERS.items() if isinstance(teacher, kind))
    (folder / "mmx.json").write_text(
        json.dumps({"family": family, "spec": spec.as_dict(), "defaults": defaults}, indent=1), encoding="utf8"
    )


def finite_pictures(pixels: Tensor) -> list[Image.Image]:
    """(B, S, S, 3) in about [-1, 1] → RGB pictures. Raises NonFiniteError."""
    if not torch.isfinite(pixels).all():
        raise NonFiniteError("the decoder produced values that are not numbers", hint="try --dtype fp32")
    array = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    return [Image.fromarray(item) for item in array]
