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
    2), outside: none. crop: (B, 3) the part of a side that is seen, and where it begins down and across, or None: all.
    """

    colour: Tensor
    shift: Tensor
    hole: Tensor
    crop: Tensor | None = None
    least: float = 1.0  # part of a side

    @classmethod
    def draw(cls, count: int, side: int, strength: float, generator: torch.Generator, crop: float = 1.0) -> View:
        """strength: 0 changes nothing; 1 is the most. crop: the least part of a side that is seen."""
        draws = torch.rand(count, 8, generator=generator)
        colour = (draws[:, :3] - 0.5) * torch.tensor([0.6, 1.0, 0.6]) * strength
        shift = ((2 * draws[:, 3:5] - 1) * SHIFT * side * strength).round().long()
        hole = torch.where(draws[:, 7:] < 0.5 * strength, draws[:, 5:7] * side, -float(side))
        if crop == 1:
            return cls(colour, shift, hole)
        seen = torch.rand(count, 3, generator=generator)
        part = crop + (1 - crop) * seen[:, :1]
        return cls(colour, shift, hole, torch.cat((part, seen[:, 1:] * (1 - part)), 1), crop)

    def pick(self, items: Tensor) -> View:
        """The views of these pictures (K,)."""
        crop = None if self.crop is None else self.crop[items]
        return View(self.colour[items], self.shift[items], self.hole[items], crop, self.least)

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
        return self._cropped(x * (~hidden)[:, None].to(x))

    def _cropped(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) → (B, 3, s, s): the part that is seen, at the resolution of the least part."""
        if self.crop is None:
            return x
        part, top, left = self.crop.to(x.device).unbind(1)
        side = round(x.shape[-1] * self.least)
        at = (torch.arange(side, device=x.device) + 0.5) / side  # middles of pixels, in parts of the crop
        rows, columns = ((2 * (start[:, None] + part[:, None] * at) - 1) for start in (top, left))
        grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), -1)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
