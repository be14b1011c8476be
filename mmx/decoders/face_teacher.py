"""The face teacher on disk: a face → its feature.

Its decoder is an image decoder that was trained on these features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mmx.decoders.base import freeze
from mmx.decoders.frozen import PictureTeacher
from mmx.decoders.teacher import pixels_of
from mmx.decoders.towers import load_resnet, save_resnet
from mmx.device import threads_for
from mmx.nets.face import GENDERS, FaceEncoder


class FaceTeacher(PictureTeacher):
    """Faces, aligned as in training → raw features of norm sqrt(D), and what a feature says of gender. Frozen."""

    names_faces = True

    def __init__(self, net: FaceEncoder) -> None:
        self.net, self.image_size = freeze(net), net.image_size

    @property
    def device(self) -> torch.device:
        return self.net.pooled.weight.device

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move it. It is small and always computes in float32."""
        self.net.to(device)

    def _embed(self, images: Sequence[Image.Image]) -> Tensor:
        with threads_for(self.net, items=len(images)):
            return self.net.encode_image(torch.stack([pixels_of(i, self.image_size) for i in images]).to(self.device))

    @torch.inference_mode()
    def gender_shares(self, raw: Tensor) -> Tensor:
        """Raw features (B, D) → probabilities (B, genders), on the CPU."""
        return self.net.gender_shares(raw.to(self.device)).cpu()

    def suggest(self, raw: Tensor) -> list[tuple[str, float]]:
        """What a raw feature (D,) suggests: the genders of the labels, with probabilities, the likelier first."""
        shares = self.gender_shares(raw[None])[0].tolist()
        return sorted(((name, round(p, 4)) for name, p in zip(GENDERS, shares, strict=True)), key=lambda pair: -pair[1])

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the teacher's folder. Weights are stored in `dtype` and loaded as float32."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.net.to(dtype)
        save_resnet(self.net.image_encoder, folder / "image_encoder")
        heads = {k: v.contiguous() for k, v in self.net.state_dict().items() if not k.startswith("image_encoder.")}
        save_file(heads, folder / "heads.safetensors")
        self.net.float()
        config = {
            "dim": self.net.dim,
            "image_size": self.net.image_size,
            "sees": self.net.sees,
            "ages": list(self.net.ages),
        }
        (folder / "heads.json").write_text(json.dumps(config, indent=1), encoding="utf8")

    @classmethod
    def load(cls, folder: Path) -> FaceTeacher:
        """Read a folder that `save` wrote."""
        from safetensors.torch import load_file

        net = FaceEncoder(
            load_resnet(folder / "image_encoder"),
            **json.loads((folder / "heads.json").read_text(encoding="utf8")),
        )
        missing = net.load_state_dict(load_file(folder / "heads.safetensors"), strict=False)
        assert not missing.unexpected_keys, missing.unexpected_keys
        return cls(net.float().to(memory_format=torch.channels_last))
