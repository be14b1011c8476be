"""A task for the training loop that is small enough to run a hundred steps at once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mmx.training.engine.loop import LoopConfig


class LineTask:
    """Fit y = 3x; small enough to run a hundred steps at once."""

    name = "line"

    def __init__(self, poison: int | None = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.poison, self.calls = poison, 0

    def batch(self, size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(size, 4, generator=generator)}

    def loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator):
        self.calls += 1
        noise = 0.1 * torch.randn(len(batch["x"]), 1, generator=generator)
        loss = (self.module(batch["x"]) - 3 * batch["x"].sum(1, keepdim=True) + noise).pow(2).mean()
        return (loss * float("nan") if self.calls == self.poison else loss), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {}

    def preview(self, module: nn.Module, path: Path) -> None:
        pass


CONFIG = LoopConfig(max_steps=40, batch_size=8, lr=1e-2, warmup=5, bf16=False, save_seconds=0.0, validate_steps=10)
