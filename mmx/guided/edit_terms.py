"""What is lost by an edit, and the edit that loses least: the terms of `mmx edit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.guided.invert import on_shell
from mmx.guided.residual import Outcome, Schedule, Step, Term, optimise

STEPS, LR = 60, 0.05
WAY = 0.5  # how far strength 1 goes, in the unit sphere of what is seen


@dataclass(frozen=True)
class Wanted:
    """direction (D,): unit norm, in the space. strength: 1 goes WAY. keep, l2: weights of likeness and of a small
    residual."""

    direction: Tensor
    strength: float = 1.0
    keep: float = 1.0
    l2: float = 0.05


@dataclass(frozen=True)
class Seen:
    """What the terms look at. now, before: unit vectors (B, D). residual (B, D)."""

    now: Tensor
    before: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Terms:
    """The losses of an edit."""

    wanted: Wanted

    def wish(self, seen: Seen) -> Tensor:
        """How much of the way is not gone: 1 at the start, 0 where it is."""
        gone = (seen.now - seen.before) @ self.wanted.direction
        return (gone / (self.wanted.strength * WAY) - 1).square().mean()

    def likeness(self, seen: Seen) -> Tensor:
        """1 - cosine of what is across the direction: all else that is seen."""
        return 1 - F.cosine_similarity(self._across(seen.now), self._across(seen.before)).mean()

    def _across(self, points: Tensor) -> Tensor:
        direction = self.wanted.direction
        return points - (points @ direction)[:, None] * direction

    def all(self, scale: float) -> list[Term[Seen]]:
        """As the loop takes them. scale: of the residual's squares, so that the conditioning has unit variance."""
        return [
            Term("wish", 1.0, self.wish),
            Term("likeness", self.wanted.keep, self.likeness),
            Term("l2", self.wanted.l2, lambda seen: seen.residual.square().mean() * scale),
        ]


def edited(
    start: Tensor,
    wanted: Wanted,
    paint: Callable[[Tensor], Tensor],
    see: Callable[[Tensor], Tensor],
    *,
    schedule: Schedule,
    watch: Callable[[Step, Sequence[Tensor]], None] | None = None,
) -> tuple[Tensor, Outcome]:
    """A conditioning (1, D) → that of the edited picture, by optimisation. paint: conditioning → pixels in [0, 1]."""
    with torch.no_grad():
        before = see(paint(start))

    def look(residual: Sequence[Tensor], step: int) -> Seen:
        return Seen(see(paint(on_shell(start + residual[0], start))), before, residual[0])

    scale = start.shape[-1] / float(start.square().sum())
    terms = Terms(wanted).all(scale)
    found = optimise([torch.zeros_like(start)], look, terms, schedule, watch=watch)
    return on_shell(start + found.residual[0], start), found
