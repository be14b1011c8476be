"""What is lost by an edit, and the edit that loses least: the terms of `mmx edit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.guided.held import on_held_shell
from mmx.guided.residual import Outcome, Schedule, Step, Term, normalised, optimise

STEPS, LR = 30, 0.02  # LR: of the conditioning's norm, a step
REFINES = 0.25  # of the rate, where all of the way is gone
WAY = 0.5  # how far strength 1 goes, in the unit sphere of what is seen


@dataclass(frozen=True)
class Wanted:
    """direction (D,): unit norm, in the space. strength: 1 goes WAY. keep, l2: weights of likeness and of a small
    residual. hold (H, D): orthonormal directions of the conditioning, along which nothing changes; None holds nothing.
    """

    direction: Tensor
    strength: float = 1.0
    keep: float = 1.0
    l2: float = 0.05
    hold: Tensor | None = None

    def held(self, point: Tensor, start: Tensor) -> Tensor:
        """A point (B, D), put back to the norm of where it started and to what is held there."""
        hold = start.new_zeros(0, start.shape[-1]) if self.hold is None else self.hold.to(start)
        return on_held_shell(point, start, hold)


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
    begins: Sequence[Tensor] = (),
    watch: Callable[[Step, Sequence[Tensor]], None] | None = None,
) -> tuple[Tensor, Outcome]:
    """A conditioning (1, D) → that of the edited picture, by optimisation. paint: conditioning → pixels in [0, 1].

    begins: points (1, D), such as some along a direction. It begins from the one of them that is seen to be nearest to
    what is wanted, where that is nearer than the start itself: through a decoder and a space a gradient alone also
    finds changes that only the space sees.

    schedule: its rate is in norms of the conditioning, for all of the way; where less is left to go, so much less. Each
    step goes along the gradient: Adam's first steps are signs, which move every entry alike, wanted or not.
    """
    terms = Terms(wanted)
    with torch.no_grad():
        before = see(paint(start))
        points = [start, *(wanted.held(point, start) for point in begins)]
        wishes = [float(terms.wish(Seen(see(paint(point)), before, point - start))) for point in points]
    first = min(range(len(points)), key=lambda k: wishes[k])

    def look(residual: Sequence[Tensor], step: int) -> Seen:
        return Seen(see(paint(wanted.held(start + residual[0], start))), before, residual[0])

    norm = float(start.norm())
    found = optimise(
        [points[first] - start],
        look,
        terms.all(start.shape[-1] / norm**2),
        replace(schedule, lr=schedule.lr * norm * max(REFINES, wishes[first] ** 0.5)),
        rule=normalised(1.0),
        watch=watch,
    )
    return wanted.held(start + found.residual[0], start), found
