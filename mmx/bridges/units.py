"""The bridge into speech from any source: features → what a unit writer goes on from → discrete units, with no text in
between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.bridges.points import ARCHITECTURES
from mmx.errors import ModelError
from mmx.models.store import Located
from mmx.nets.writer import Sampling, UnitWriter


class Trunk(nn.Module):
    """Features (B, ...) → what each place of them is like (B, P, C), by a network of its own; of a frozen encoder's
    vector or patches, as they are."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__()
        own = ARCHITECTURES[config.architecture]
        self.net: nn.Module | None = None
        if config.source is None:
            fields = {name: getattr(config, name) for name in own.fields}
            self.net = own.encoder(1, **(fields | config.sizes))
            self.net.head = nn.Identity()  # a point is not asked for

    def forward(self, features: Tensor) -> Tensor:
        if self.net is not None:
            return self.net.tokens(features)
        return features if features.dim() == 3 else features[:, None]


class UnitBridge(Bridge, repo_url="https://github.com/mmx"):
    """Any source's features → an autoregressive unit writer (text-free image-to-speech, Hsu et al., ACL 2021)."""

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        if self.config.writer is None:
            raise ModelError("this bridge's config has no writer", hint="mmx train-bridge makes one")
        self.voice = self.config.sources[0] == "voice"
        self.trunk = Trunk(self.config)
        self.encoder = UnitWriter(self.spec.shape[0], **self.config.writer)
        if self.config.source is None:
            self.frontend = ARCHITECTURES[self.config.architecture].frontend(self.config, None, self.voice)

    def attach(self, encoder: Located) -> None:
        own = ARCHITECTURES[self.config.architecture]
        frozen = own.opens(encoder)
        require_source(self.config, encoder.name, frozen.fingerprint)
        self.use(own.frontend(self.config, frozen, self.voice))

    def tokens(self, features: Tensor) -> Tensor:
        """Features (B, ...) → (B, P, C)."""
        return self.trunk(features)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, ...) → the embedded prefix that the writer goes on from (B, P + 1, W)."""
        return self.encoder.prefix(self.tokens(features))

    @torch.no_grad()
    def write(self, features: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """Features of a medium's windows (V, ...) → units (L,)."""
        return self.encoder.write(self.tokens(features), sampling, generator)
