"""The mapper of `mmx edit` (StyleCLIP's, Patashnik et al. 2021): what one text adds to any conditioning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmx.bridges.base import Bridge, BridgeConfig
from mmx.errors import ModelError, UsageError

TASK, ARCHITECTURE = "edit", "mapper"
SIZES = {"width": 512, "depth": 4}


class Mapper(Bridge, repo_url="https://github.com/mmx"):
    """A decoder's conditioning → a residual on it, in one forward pass. Its one label is the text that it maps to."""

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        if (self.config.task, self.config.architecture) != (TASK, ARCHITECTURE):
            raise ModelError(
                f"a bridge of {self.config.task} is no mapper of edits", hint="mmx train-mapper TEXT makes one"
            )
        if len(self.spec.shape) != 1:
            raise ModelError(f"{self.spec.name}: a mapper takes one vector, and this decoder listens to several")
        dim, width = self.spec.shape[0], self.config.sizes["width"]
        layers: list[nn.Module] = []
        for inputs in (dim, *[width] * (self.config.sizes["depth"] - 1)):
            layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
        last = nn.Linear(width, dim)
        nn.init.zeros_(last.weight)  # before the first step nothing is edited
        nn.init.zeros_(last.bias)
        self.encoder = nn.Sequential(*layers, last)

    @property
    def text(self) -> str:
        """What it maps to."""
        return next(iter(self.config.labels))

    def require_text(self, text: object) -> None:
        """Raise UsageError for anything but its own text."""
        if text != self.text:
            raise UsageError(
                f'this mapper was trained for "{self.text}" and nothing else', hint="leave the text or --mapper out"
            )

    def forward(self, conditioning: Tensor) -> Tensor:
        """Raw conditionings (B, D) → residuals (B, D) on them. What it sees has unit variance, and so has what it gives
        that is 1: nothing here depends on how a space is scaled."""
        scale = self.spec.mean_norm / self.spec.shape[0] ** 0.5
        return self.encoder(conditioning / scale) * scale

    def edited(self, conditioning: Tensor, strength: float = 1.0) -> Tensor:
        """Raw conditionings (B, D) → those of the edited pictures (B, D), of the same norm."""
        moved = conditioning + strength * self(conditioning)
        return moved * (conditioning.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True))

    @classmethod
    def load(cls, folder: Path) -> Mapper:
        """As of every bridge. Raises ModelError, NonFiniteError."""
        found = super().load(folder)
        assert isinstance(found, Mapper)
        return found
