"""The sight bridge: a picture → discrete units of speech, with no text in between."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.bridges.image_encoders import Eyes, open_eyes
from mmx.errors import ModelError
from mmx.models.store import Located
from mmx.nets.writer import Sampling, UnitWriter


class SightBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="image-to-audio"):
    """A frozen encoder's patches → an autoregressive unit writer (text-free image-to-speech, Hsu et al., ACL 2021).

    The encoder is not a part of the bridge's weights: it is the teacher of an image decoder or a pretrained vision model, and
    `attach` sets it.
    """

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        sizes = self.config.writer
        if sizes is None:
            raise ModelError("this bridge's config has no writer", hint="mmx train-bridge img2speech makes one")
        self.encoder = UnitWriter(self.spec.shape[0], **sizes)
        self.eyes: Eyes | None = None

    def attach(self, encoder: Located) -> None:
        eyes = open_eyes(encoder)
        require_source(self.config, encoder.name, eyes.fingerprint)
        # a plain attribute: neither saved, nor trained, nor counted
        object.__setattr__(self, "eyes", eyes)

    @torch.inference_mode()
    def prepare(self, media: Image.Image) -> Tensor:
        """An RGB picture of any size → the patches of it and of its mirror image (2, P, C)."""
        assert self.eyes is not None, "attach comes first"
        return self.eyes.both_ways(media)

    def forward(self, features: Tensor) -> Tensor:
        """Patches (B, P, C) → the embedded prefix that the writer goes on from (B, P + 1, W)."""
        return self.encoder.prefix(features)

    def write(self, features: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """Patches (V, P, C) → units (L,)."""
        return self.encoder.write(features, sampling, generator)
