"""The image bridge: a picture → discrete units of speech, with no text in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.bridges.frontends import Image
from mmx.bridges.image_encoders import open_image_encoder
from mmx.errors import ModelError
from mmx.models.store import Located
from mmx.nets.writer import Sampling, UnitWriter


class ImageBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="image-to-audio"):
    """A frozen encoder's patches → an autoregressive unit writer (text-free image-to-speech, Hsu et al., ACL 2021).

    The encoder is not a part of the bridge's weights: it is the teacher of an image decoder or a pretrained vision
    model, and `attach` loads it.
    """

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        sizes = self.config.writer
        if sizes is None:
            raise ModelError("this bridge's config has no writer", hint="mmx train-bridge img2speech makes one")
        self.encoder = UnitWriter(self.spec.shape[0], **sizes)

    def attach(self, encoder: Located) -> None:
        looking = open_image_encoder(encoder)
        require_source(self.config, encoder.name, looking.fingerprint)
        self.use(Image(looking))

    def tokens(self, features: Tensor) -> Tensor:
        """Patches (B, P, C) as they are."""
        return features

    def forward(self, features: Tensor) -> Tensor:
        """Patches (B, P, C) → the embedded prefix that the writer goes on from (B, P + 1, W)."""
        return self.encoder.prefix(features)

    def write(self, features: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """Patches (V, P, C) → units (L,)."""
        return self.encoder.write(features, sampling, generator)
