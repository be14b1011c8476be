"""What is trained, and how: what the loop is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Task(Protocol):
    """What a run optimises. Batches are a function of the generator alone, so that a resumed run repeats them; they are
    made on the CPU, in a thread beside the step's.

    lower_is_better: of what `validate` measures; of all else more is better. Tasks that several processes can share
    take a third argument in `batch`: which part of the batch is wanted.
    """

    name: str
    module: nn.Module
    lower_is_better: tuple[str, ...]

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]: ...

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]: ...

    def validate(self, module: nn.Module) -> dict[str, float]: ...

    def preview(self, module: nn.Module, path: Path) -> None: ...


@dataclass(frozen=True)
class LoopConfig:
    """How to train. The schedule is a linear warm-up and a cosine to zero over `max_steps`."""

    max_steps: int
    batch_size: int
    lr: float
    warmup: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    device: str = "cpu"
    bf16: bool = True
    save_seconds: float = 120.0
    validate_steps: int = 500
    accumulate: int = 1  # batches whose gradients make one step
    metric: str | None = None  # of val, by which the best weights are kept; the last are, without
    patience: int = 0  # validations without a better metric after which a run stops; 0: never

    lr_scales: tuple[tuple[str, float], ...] = ()  # the rate of parameters whose names begin so, in lr

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.max_steps - self.warmup)))


# what a run may be resumed with other values of; the warm-up follows from max_steps
FREE = ("max_steps", "warmup", "device", "save_seconds", "validate_steps", "patience")


def generator_of(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator that is a function of (seed, step, stream): the reason why runs resume exactly."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4 + stream & 0x7FFF_FFFF_FFFF_FFFF)


def parameter_groups(module: nn.Module, scales: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """An optimizer's groups: a network inside a task's module, such as a critic, may learn at its own rate."""
    groups: list[dict[str, Any]] = [{"params": [], "scale": scale} for scale in (1.0, *(scale for _, scale in scales))]
    for name, parameter in module.named_parameters():
        own = [number for number, (prefix, _) in enumerate(scales, 1) if name.startswith(prefix)]
        groups[own[0] if own else 0]["params"].append(parameter)
    return groups
