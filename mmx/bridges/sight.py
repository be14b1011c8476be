"""The sight bridge: a picture → discrete units of speech, with no text in between."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.decoders.base import fingerprint
from mmx.decoders.image import SPACE
from mmx.decoders.teacher import Teacher, pixels_of
from mmx.errors import ModelError
from mmx.nets.writer import Sampling, UnitWriter
from mmx.store import Located


class SightBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="image-to-audio"):
    """A frozen encoder's patches → an autoregressive unit writer (text-free image-to-speech, Hsu et al., ACL 2021).

    The encoder is not a part of the bridge's weights: it is the teacher of an image decoder, and `attach` sets it.
    """

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        sizes = self.config.writer
        if sizes is None:
            raise ModelError("this bridge's config has no writer", hint="mmx train-bridge img2speech makes one")
        self.encoder = UnitWriter(self.spec.shape[0], **sizes)
        self.teacher: Teacher | None = None

    def attach(self, encoder: Located) -> None:
        found = fingerprint(encoder.folder, SPACE)
        require_source(self.config, encoder.name, found)
        # a plain attribute: neither saved, nor trained, nor counted
        object.__setattr__(self, "teacher", Teacher.load(encoder.folder / "teacher"))

    @torch.inference_mode()
    def prepare(self, media: Image.Image) -> Tensor:
        """An RGB picture of any size → the patches of it and of its mirror image (2, P, C)."""
        assert self.teacher is not None, "attach comes first"
        pixels = pixels_of(media, self.teacher.net.image_size)
        return patches_of(self.teacher, torch.stack((pixels, pixels.flip(2))))

    def forward(self, features: Tensor) -> Tensor:
        """Patches (B, P, C) → the embedded prefix that the writer goes on from (B, P + 1, W)."""
        return self.encoder.prefix(features)

    def write(self, features: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """Patches (V, P, C) → units (L,)."""
        return self.encoder.write(features, sampling, generator)


def patches_of(teacher: Teacher, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, S, S) in [-1, 1] → the teacher's last feature map as patches (B, P, C)."""
    return teacher.net.image_encoder(pixels).last_hidden_state.float().flatten(2).transpose(1, 2)
