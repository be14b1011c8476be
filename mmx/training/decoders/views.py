"""Augmentations that a discriminator sees through: the same for a real and a drawn picture, differentiable
(Zhao et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 1 / 8  # of the side
HOLE = 0.4  # of the side


@dataclass
class View:
    """How each of B pictures is seen. colour: (B, 3) brightness, saturation, contrast; shift: (B, 2) pixels; hole: (B,
    2), outside: none.
    """

    colour: Tensor
    shift: Tensor
    hole: Tensor

    @classmethod
    def draw(cls, count: int, side: int, strength: float, generator: torch.Generator) -> View:
        """strength: 0 changes nothing; 1 is the most."""
        draws = torch.rand(count, 8, generator=generator)
        colour = (draws[:, :3] - 0.5) * torch.tensor([0.6, 1.0, 0.6]) * strength
        shift = ((2 * draws[:, 3:5] - 1) * SHIFT * side * strength).round().long()
        hole = torch.where(draws[:, 7:] < 0.5 * strength, draws[:, 5:7] * side, -float(side))
        return cls(colour, shift, hole)

    def pick(self, items: Tensor) -> View:
        """The views of these pictures (K,)."""
        return View(self.colour[items], self.shift[items], self.hole[items])

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) → the same, seen so."""
        side = pixels.shape[-1]
        bright, saturated, contrast = self.colour.to(pixels.device)[:, :, None, None, None].unbind(1)
        x = pixels + bright
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (1 + saturated)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * (1 + contrast)
        margin = round(SHIFT * side)
        padded, at = F.pad(x, (margin,) * 4), (self.shift + margin).tolist()
        x = torch.stack(
            [item[:, top : top + side, left : left + side] for item, (top, left) in zip(padded, at, strict=True)]
        )
        near = (torch.arange(side)[None, None] - self.hole[:, :, None]).abs() <= HOLE / 2 * side
        hidden = near[:, 0, :, None] & near[:, 1, None, :]
        return x * (~hidden)[:, None].to(x)
