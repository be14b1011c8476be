"""A generator that draws a picture in one step, from a conditioning vector and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLUs


class StyledNorm(nn.Module):
    """Batch normalisation whose scale and shift are a style's (conditional batch normalisation, de Vries et al.
    2017).
    """

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(style, 2 * channels)
        nn.init.normal_(self.affine.weight, 0, 0.25 / math.sqrt(style))
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.affine(style)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class Level(nn.Module):
    """Twice the side: nearest neighbour, convolution, styled normalisation."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, SLOPE)
        self.norm = StyledNorm(outputs, style)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return F.leaky_relu(self.norm(x, style), SLOPE)


class Generator(nn.Module):
    """Conditioning and noise → a map of 4x4, which each level doubles (IC-GAN's input, Casanova et al. 2021, on
    a small network).
    """

    def __init__(
        self, dim: int = 96, noise: int = 64, style: int = 192, widths: Sequence[int] = (256, 128, 96, 64, 16)
    ) -> None:
        """dim: of the conditioning. noise, style: widths of vectors. widths: channels at 4, 8, 16, ... pixels a side;
        the last is the picture's own resolution.
        """
        super().__init__()
        self.sizes = {"dim": dim, "noise": noise, "style": style, "widths": tuple(widths)}
        self.noise, self.size = noise, 4 << (len(widths) - 1)
        self.style = nn.Sequential(
            nn.Linear(noise + dim, style), nn.LeakyReLU(SLOPE), nn.Linear(style, style), nn.LeakyReLU(SLOPE)
        )
        self.seed = nn.Linear(noise + dim, widths[0] * 16, bias=False)
        self.norm = StyledNorm(widths[0], style)
        self.levels = nn.ModuleList(Level(before, after, style) for before, after in pairwise(widths))
        self.colours = nn.Conv2d(widths[-1], 3, 3, 1, 1)

    def forward(self, noise: Tensor, conditioning: Tensor) -> Tensor:
        """noise (B, Z) ~ N(0, 1), conditioning (B, D) of norm sqrt(D) → pixels (B, 3, S, S) in [-1, 1]."""
        both = torch.cat((noise, conditioning), 1)
        style = self.style(both)
        x = self.seed(both).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.norm(x, style), SLOPE)
        for level in self.levels:
            x = level(x, style)
        return torch.tanh(self.colours(x))
