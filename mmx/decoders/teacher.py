"""The starter teacher on disk: towers in the transformers library's format, our two heads beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mmx.decoders.base import fingerprint, freeze, tensors_digest
from mmx.decoders.frozen import PictureTeacher
from mmx.decoders.horizon import Horizon
from mmx.decoders.towers import TextReader, load_resnet, load_text_tower, save_resnet, save_text_tower
from mmx.device import threads_for
from mmx.digest import sha256
from mmx.media.image import fit_square
from mmx.nets.dual import DualEncoder

HEADS = "heads.safetensors"


class Teacher(PictureTeacher):
    """Images and texts → one space. Frozen."""

    has_texts = True

    def __init__(self, net: DualEncoder, reader: TextReader, horizon: Horizon | None = None) -> None:
        self.net, self.reader, self.horizon, self.image_size = freeze(net), reader, horizon, net.image_size

    @property
    def device(self) -> torch.device:
        return self.net.logit_scale.device

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move it. It is small and always computes in float32."""
        self.net.to(device)

    def _embed(self, images: Sequence[Image.Image]) -> Tensor:
        with threads_for(self.net, items=len(images)):
            return self.net.encode_image(torch.stack([pixels_of(i, self.image_size) for i in images]).to(self.device))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → unit-norm embeddings (B, D), float32, on the CPU."""
        ids, mask = self.reader(texts)
        with threads_for(self.net):
            return self.net.encode_text(ids.to(self.device), mask.to(self.device)).cpu()

    def are_far(self, texts: Sequence[str]) -> list[bool]:
        """Whether texts are far from everything that the space was trained on; none is where nobody measured that."""
        return [False] * len(texts) if self.horizon is None else self.horizon.is_far(self.embed_texts(texts))

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the teacher's folder. Weights are stored in `dtype` and loaded as float32."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tower_dtypes = {name: value.dtype for name, value in self.net.state_dict().items()}
        self.net.to(dtype)
        save_resnet(self.net.image_encoder, folder / "image_encoder")
        save_text_tower(self.net.text_encoder, folder / "text_encoder")
        heads = {
            name: value.contiguous()
            for name, value in self.net.state_dict().items()
            if not name.startswith(("image_encoder.", "text_encoder."))
        }
        save_file(heads, folder / HEADS)
        self.net.to(next(iter(tower_dtypes.values())))
        self.reader.save(folder / "tokenizer")
        if self.horizon is not None:
            self.horizon.save(folder)
        config = {
            "image_size": self.net.image_size,
            "semantic_dim": self.net.semantic.out_features,
            "semantic_share": round(self.net.shares[0] ** 2, 6),
        }
        if self.net.layout_cells:
            config["layout_cells"] = self.net.layout_cells
        if self.net.sees != self.net.image_size:
            config["sees"] = self.net.sees
        (folder / "heads.json").write_text(json.dumps(config, indent=1), encoding="utf8")

    @classmethod
    def load(cls, folder: Path) -> Teacher:
        """Read a folder that `save` wrote."""
        from safetensors.torch import load_file

        net = DualEncoder(
            load_resnet(folder / "image_encoder"),
            load_text_tower(folder / "text_encoder"),
            **json.loads((folder / "heads.json").read_text(encoding="utf8")),
        )
        missing = net.load_state_dict(load_file(folder / HEADS), strict=False)
        assert not missing.unexpected_keys, missing.unexpected_keys
        reader = TextReader.load(folder / "tokenizer", net.text_encoder.sizes["length"])
        return cls(net.float().to(memory_format=torch.channels_last), reader, Horizon.load(folder))


def image_side(folder: Path) -> str:
    """sha256 over what of a teacher's folder embeds pictures. What embeds texts has no part in it, and neither has the
    temperature at which both are compared."""
    from safetensors.torch import load_file

    heads = load_file(folder / HEADS)
    del heads["logit_scale"]
    own = fingerprint(folder, ("image_encoder", "heads.json"))
    return sha256(f"{own} {tensors_digest(heads)}".encode())


def pixels_of(image: Image.Image, size: int) -> Tensor:
    """RGB picture → (3, S, S) in [-1, 1], squared to `size` pixels."""
    return as_pixels(fit_square(image, size))


def as_pixels(image: Image.Image) -> Tensor:
    """RGB picture → (3, H, W) in [-1, 1]."""
    import numpy as np

    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1
