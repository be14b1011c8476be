"""A generator that draws a picture in one step, from a conditioning vector and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLUs


def without_repeats(x: Tensor, period: int, kept: float = 0.7) -> Tensor:
    """Pictures (B, C, S, S) less what repeats every `period` pixels, down and across, over the whole of each: a grid
    that doubling levels leave (Odena et al. 2016). The mean colour stays, and the part `kept`, since photos have some
    of every frequency: with none a judge found faces farther from photos than with the whole grid.
    """
    cells = x.unflatten(3, (-1, period)).unflatten(2, (-1, period))  # (B, C, S / p, p, S / p, p)
    repeated = cells.mean((2, 4), keepdim=True)
    grid = repeated - repeated.mean((3, 5), keepdim=True)
    return (cells - (1 - kept) * grid).flatten(4, 5).flatten(2, 3)


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


class Refinement(nn.Module):
    """A residual block at a level's own resolution, which starts as the identity (zero-initialised last convolution,
    Goyal et al. 2017), so that a trained generator can be given one.
    """

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, SLOPE)
        self.norm = StyledNorm(channels, style)
        self.last = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return x + self.last(F.leaky_relu(self.norm(self.conv(x), style), SLOPE))


class Generator(nn.Module):
    """Conditioning and noise → a map of 4x4, which each level doubles (IC-GAN's input, Casanova et al. 2021, on
    a small network).
    """

    def __init__(
        self,
        dim: int = 96,
        noise: int = 64,
        style: int = 192,
        widths: Sequence[int] = (256, 128, 96, 64, 16),
        refined: int = 0,
        period: int = 0,
    ) -> None:
        """dim: of the conditioning. noise, style: widths of vectors. widths: channels at 4, 8, 16, ... pixels a side;
        the last is the picture's own resolution. refined: how many of the coarsest maps go through a residual block.
        period: in pixels, of the grid that is taken out of the picture; 0 for none.
        """
        super().__init__()
        self.sizes = {"dim": dim, "noise": noise, "style": style, "widths": tuple(widths), "refined": refined}
        self.sizes |= {"period": period} if period else {}
        self.period = period
        self.noise, self.size = noise, 4 << (len(widths) - 1)
        self.style = nn.Sequential(
            nn.Linear(noise + dim, style), nn.LeakyReLU(SLOPE), nn.Linear(style, style), nn.LeakyReLU(SLOPE)
        )
        self.seed = nn.Linear(noise + dim, widths[0] * 16, bias=False)
        self.norm = StyledNorm(widths[0], style)
        self.levels = nn.ModuleList(Level(before, after, style) for before, after in pairwise(widths))
        self.refinements = nn.ModuleList(Refinement(width, style) for width in widths[:refined])
        self.colours = nn.Conv2d(widths[-1], 3, 3, 1, 1)

    def forward(self, noise: Tensor, conditioning: Tensor) -> Tensor:
        """noise (B, Z) ~ N(0, 1), conditioning (B, D) of norm sqrt(D) → pixels (B, 3, S, S) in [-1, 1]."""
        both = torch.cat((noise, conditioning), 1)
        style = self.style(both)
        x = self.seed(both).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.norm(x, style), SLOPE)
        for k, level in enumerate((*self.levels, None)):
            if k < len(self.refinements):
                x = self.refinements[k](x, style)
            if level is not None:
                x = level(x, style)
        x = torch.tanh(self.colours(x))
        return without_repeats(x, self.period) if self.period else x

    def grow_from(self, smaller: Generator) -> None:
        """Take the weights of a generator with the same inputs and output, no wider and no deeper, so that this one
        draws what that one does: its channels come first, and nothing reads the new ones yet (Net2Net's idea, Chen et
        al. 2016). Raises ValueError where it does not fit into this one.
        """
        for name in ("dim", "noise", "style"):
            if self.sizes[name] != smaller.sizes[name]:
                raise ValueError(f"{name} is {smaller.sizes[name]}, not {self.sizes[name]}")
        own = self.state_dict()
        for name, value in smaller.state_dict().items():
            if value.dim() == 0:
                own[name].copy_(value)
                continue
            if name not in own or any(a < b for a, b in zip(own[name].shape, value.shape, strict=True)):
                raise ValueError(f"{name} of {tuple(value.shape)} does not fit")
            halves = 2 if ".affine." in name else 1  # scales, then shifts
            for mine, part in zip(own[name].tensor_split(halves), value.tensor_split(halves), strict=True):
                mine[: len(part)] = 0  # what there was reads nothing of what is new
                mine[tuple(map(slice, part.shape))] = part
