"""The one loop of ZeroCap, StyleCLIP and CLIP-Actor: tensors are optimised through frozen networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from mmx.interrupt import Interruptible

S = TypeVar("S")

# the residual's tensors → what moves them, at a rate, by the gradients that they hold
Rule = Callable[[Sequence[Tensor]], Callable[[float], None]]


@dataclass(frozen=True)
class Term(Generic[S]):
    """A named loss. loss: what was seen → a scalar, not yet weighted."""

    name: str
    weight: float
    loss: Callable[[S], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. The rate rises in a line over `ramp_up` of the steps and falls as a cosine over the last
    `ramp_down` (Karras et al. 2020, appendix D; StyleCLIP). patience: steps without a better one after which it stops.
    until: the last step all the same, as where it was interrupted once.
    """

    steps: int
    lr: float
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    patience: int | None = None
    until: int | None = None

    def lr_at(self, step: int) -> float:
        """Of step 0, 1, ..."""
        up = min(1.0, (step + 1) / (self.ramp_up * self.steps)) if self.ramp_up else 1.0
        down = min(1.0, (1 - step / self.steps) / self.ramp_down) if self.ramp_down else 1.0
        return self.lr * up * (0.5 - 0.5 * math.cos(math.pi * down))


@dataclass(frozen=True)
class Step:
    """What was seen before update `index` of `total`. losses: by name, not weighted; loss: their weighted sum.
    best: whether it was never lower."""

    index: int
    total: int
    loss: float
    losses: dict[str, float]
    best: bool


Stopped = Literal["", "early", "interrupted", "nonfinite"]


@dataclass
class Outcome:
    """residual: what is kept, finite whatever happened, and the `step` that it is of. steps: all that were seen.
    stopped: why before its time, or nothing."""

    residual: list[Tensor]
    step: int = 0
    steps: list[Step] = field(default_factory=list)
    stopped: Stopped = ""


def adam(betas: tuple[float, float] = (0.9, 0.999)) -> Rule:
    """Kingma & Ba 2015."""

    def start(tensors: Sequence[Tensor]) -> Callable[[float], None]:
        optimizer = torch.optim.Adam(tensors, betas=betas)

        def move(lr: float) -> None:
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()

        return move

    return start


def normalised(exponent: float = 0.9, *, by_row: bool = False) -> Rule:
    """Each tensor along its gradient over that gradient's norm to a power (PPLM, Dathathri et al. 2020; ZeroCap).

    by_row: the norm is of each row alone, so that what is optimised side by side goes where it would go alone.
    """

    def start(tensors: Sequence[Tensor]) -> Callable[[float], None]:
        def move(lr: float) -> None:
            for tensor in tensors:
                own = tuple(range(1, tensor.dim())) if by_row else None
                norm = torch.linalg.vector_norm(tensor.grad, dim=own, keepdim=by_row) + 1e-15
                tensor.sub_(lr * tensor.grad / norm**exponent)

        return move

    return start


def optimise(
    residual: Sequence[Tensor],
    see: Callable[[Sequence[Tensor], int], S],
    terms: Sequence[Term[S]],
    schedule: Schedule,
    *,
    keep: Literal["best", "last"] = "best",
    rule: Rule | None = None,
    watch: Callable[[Step, Sequence[Tensor]], None] | None = None,
) -> Outcome:
    """Move a residual so that the weighted sum of losses falls.

    residual: where it starts; left as it is. see: the residual and the step's number → what the terms look at, so that
    the frozen networks run once a step; it draws nothing from the global random state. keep: of the steps the one with
    the lowest sum, or what the last one leaves: the latter where each step sees something else, so that sums of two
    steps don't compare. watch: is told of each step, with the residual of it (not to be kept: it changes).

    Ctrl-C ends it after the step in work, a loss or gradient that is no number at once; both leave what was kept so
    far. Losses that need no gradient are fine as long as one needs it.
    """
    tensors = [tensor.detach().clone().requires_grad_() for tensor in residual]
    outcome = Outcome([tensor.detach().clone() for tensor in tensors])
    move = (rule or adam())(tensors)
    lowest, waited = math.inf, 0
    last = schedule.steps if keep == "best" else schedule.steps - 1  # the last residual is looked at, too
    with torch.enable_grad(), Interruptible() as interruptible:
        for index in range(last + 1):
            step, total = _look(tensors, see, terms, index, schedule.steps)
            if not math.isfinite(step.loss):
                outcome.stopped = "nonfinite"
                break
            better = step.loss < lowest
            lowest, waited = (step.loss, 0) if better else (lowest, waited + 1)
            step = Step(index, schedule.steps, step.loss, step.losses, better)
            outcome.steps.append(step)
            if keep == "last" or better:
                _keep(outcome, tensors, index)
            if watch is not None:
                watch(step, tensors)
            if interruptible.asked:
                outcome.stopped = "interrupted"
                break
            if index in (schedule.steps, schedule.until):
                break
            if schedule.patience is not None and waited >= schedule.patience:
                outcome.stopped = "early"
                break
            if not _moved(tensors, total, move, schedule.lr_at(index)):
                outcome.stopped = "nonfinite"
                break
        else:
            _keep(outcome, tensors, schedule.steps)
    return outcome


def _look(
    tensors: list[Tensor], see: Callable[[Sequence[Tensor], int], S], terms: Sequence[Term[S]], index: int, steps: int
) -> tuple[Step, Tensor]:
    """The losses of a step, and their weighted sum with its graph."""
    seen = see(tensors, index)
    losses = {term.name: term.loss(seen) for term in terms}
    total = torch.stack([term.weight * losses[term.name] for term in terms]).sum()
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    return Step(index, steps, float(total.detach()), values, False), total


def _moved(tensors: list[Tensor], total: Tensor, move: Callable[[float], None], lr: float) -> bool:
    """One update; not where a gradient is no number."""
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = torch.zeros_like(tensor) if gradient is None else gradient
    if not all(torch.isfinite(tensor.grad).all() for tensor in tensors):
        return False
    with torch.no_grad():
        move(lr)
    return True


def _keep(outcome: Outcome, tensors: list[Tensor], step: int) -> None:
    outcome.residual, outcome.step = [tensor.detach().clone() for tensor in tensors], step
