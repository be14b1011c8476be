"""Photos that are never the same twice: cut, and mixed with one another."""

from __future__ import annotations

import torch
from torch import Tensor

from mmx.training.decoders.space import random_crops

CUT = (0.6, 1.15)  # of a side: what is beyond the edge is mirrored
WAYS = 3  # left alone, mixed everywhere, mixed in a rectangle: equally often


def kept_shares(count: int, side: int, generator: torch.Generator) -> Tensor:
    """How much of itself each of `count` pictures keeps at each of its pixels: (count, 1, side, side) in [0, 1].

    All, a share of each pixel (mixup, Zhang et al. 2018), or all but a square (CutMix, Yun et al. 2019); the larger
    part is always its own.
    """
    share = 0.5 + 0.5 * torch.rand(count, generator=generator)
    way = torch.randint(WAYS, (count,), generator=generator)
    middle = torch.rand(count, 2, generator=generator)
    half = (1 - share).sqrt() / 2
    at = (torch.arange(side) + 0.5) / side
    inside = (at[None, None] - middle[:, :, None]).abs() < half[:, None, None]  # (count, rows and columns, side)
    square = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    everywhere = torch.where(way == 1, share, torch.ones(()))[:, None, None, None].expand(square.shape)
    return torch.where((way == 2)[:, None, None, None] & square, torch.zeros(()), everywhere)


def mixed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) → the same: each cut anew, and mixed with the one before it."""
    views = random_crops(pixels, generator, *CUT)
    keep = kept_shares(len(views), views.shape[-1], generator).to(views.device)
    return views * keep + views.roll(1, 0) * (1 - keep)
