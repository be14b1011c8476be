"""A photo → the conditioning that a frozen decoder draws it from as nearly as it can."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.decoders.base import Decoder
from mmx.decoders.teacher import pixels_of
from mmx.errors import Interrupted
from mmx.guided.residual import Schedule, Term, optimise

LR = 0.03  # of a conditioning's entries, whose variance is near 1
FEATURES, NEAR = (
    0.5,
    0.02,
)  # weights beside that of the pixels: of what is seen, and of staying near the teacher's point

Paint = Callable[[Tensor], Tensor]  # conditioning (B, D) → pixels (B, 3, S, S) in about [-1, 1]


@dataclass(frozen=True)
class Inverted:
    """conditioning (1, D), and the mean absolute error of pixels in [0, 1] before and after the steps."""

    conditioning: Tensor
    before: float
    after: float


def on_shell(point: Tensor, like: Tensor) -> Tensor:
    """A point (B, D) with the norm of another: raw conditionings lie on a shell."""
    return point * (like.norm(dim=-1, keepdim=True) / point.norm(dim=-1, keepdim=True))


def invert(photo: Image.Image, decoder: Decoder, paint: Paint, see: Callable[[Tensor], Tensor], steps: int) -> Inverted:
    """From the teacher's own point on, so that pixels and what `see` makes of them come near the photo's.

    see: pixels (B, 3, S, S) in [0, 1] → unit vectors (B, D). steps: 0 leaves the teacher's point as it is. Raises
    Interrupted: nothing was made of it yet.
    """
    start = decoder.targets([photo]).to(decoder.device).clone()  # not one of inference mode
    size = paint(start).shape[-1]
    wanted = pixels_of(photo, size)[None].to(decoder.device)
    with torch.no_grad():
        seen = see(wanted / 2 + 0.5)

    def look(residual, step: int) -> tuple[Tensor, Tensor]:
        return paint(on_shell(start + residual[0], start)), residual[0]

    terms = [
        Term("pixels", 1.0, lambda s: (s[0] - wanted).abs().mean() / 2),
        Term("features", FEATURES, lambda s: 1 - F.cosine_similarity(see(s[0] / 2 + 0.5), seen).mean()),
        Term("near", NEAR, lambda s: s[1].square().mean() * _scale(start)),
    ]
    found = optimise([torch.zeros_like(start)], look, terms, Schedule(steps, LR / math.sqrt(_scale(start))))
    if found.stopped == "interrupted":
        raise Interrupted("interrupted before the first step; nothing was made yet")
    errors = [step.losses["pixels"] for step in found.steps]
    point = on_shell(start + found.residual[0], start)
    return Inverted(point, errors[0], errors[min(found.step, len(errors) - 1)])


def _scale(point: Tensor) -> float:
    """How many times a unit variance's the conditioning's entries have to be multiplied: 1 where they have it."""
    return point.shape[-1] / float(point.square().sum(-1).mean())
