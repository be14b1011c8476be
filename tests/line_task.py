"""A task that is small enough to run a hundred steps at once, and what tests ask of its runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmx.training.engine.loop import LoopConfig, Run

CONFIG = LoopConfig(max_steps=40, batch_size=8, lr=1e-2, warmup=5, bf16=False, save_seconds=0.0, validate_steps=10)


class LineTask:
    """Fit y = 3x."""

    lower_is_better = ("val_loss",)

    def __init__(self, poison: int | None = None, name: str = "line", slope: float = 3.0) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.poison, self.calls, self.name, self.slope = poison, 0, name, slope

    def batch(self, size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(size, 4, generator=generator)}

    def loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator):
        self.calls += 1
        noise = 0.1 * torch.randn(len(batch["x"]), 1, generator=generator)
        loss = (self.module(batch["x"]) - self.slope * batch["x"].sum(1, keepdim=True) + noise).pow(2).mean()
        return (loss * float("nan") if self.calls == self.poison else loss), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {}

    def preview(self, module: nn.Module, path: Path) -> None:
        pass


def line(folder: Path, *, name: str = "line", slope: float = 3.0, **options: Any) -> Run:
    """A run of a LineTask; options of LoopConfig change its CONFIG, the others are Run's."""
    changes = {key: options.pop(key) for key in tuple(options) if key in LoopConfig.__dataclass_fields__}
    return Run(LineTask(name=name, slope=slope), replace(CONFIG, **changes), folder, **options)


def fitted(run: Run) -> Run:
    """The run, over."""
    run.fit(quiet=True)
    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    """What a run holds, copied: its own weights and their average."""
    own = {name: value.clone() for name, value in run.module.state_dict().items()}
    return own | {f"average of {name}": value.clone() for name, value in run.average.tensors.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether both hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
