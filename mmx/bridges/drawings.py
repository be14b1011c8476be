"""How line drawings are seen: the lines of any pen on any paper, filling a square; and how such a drawing may vary."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.errors import InputError
from mmx.media.arrays import COLOURS

INK = 0.5  # of the strongest line: what is at least that belongs to the drawing
MARGIN = 0.04  # of its longer side, that is left around a drawing
TURN, GROWTH, LEAN = math.radians(12), 0.15, 0.12  # how far drawings are turned, scaled, and drawn out
AWAY, WOBBLE, KNOTS = 0.15, 0.05, 5  # of half a side: moved as a whole, and bent between so many knots
BOLD, SPARSE, CUT = 0.25, 0.5, 0.5  # shares that are drawn with a broader pen, without details, in part
SHORTEST = 16  # pixels, that the longest line left out as a detail has
HOLE = 0.4  # of a side, that the largest part left out has


def as_drawing(array: np.ndarray, name: str) -> np.ndarray:
    """A drawing (H, W), (C, H, W) or (H, W, C) in whatever range → its lines (H, W) float32, from 0 on the paper, which
    most of a drawing is, to 1 where it is least like that. Raises InputError for what has not two axes."""
    values = np.nan_to_num(array.astype(np.float32))
    if values.ndim == 3:
        values = values.mean(-1 if values.shape[-1] <= COLOURS < values.shape[0] else 0)
    if values.ndim != 2:
        raise InputError(
            f"{name}: an array of shape {array.shape} is no drawing", hint="(H, W) is, in one colour or more"
        )
    ink = np.abs(values - np.median(values))
    return ink / max(float(ink.max()), 1e-6)


def filling(lines: Tensor, size: int) -> Tensor:
    """Lines (1, H, W) of a drawing → the square around what is drawn (1, size, size), in which a fine line is not
    fainter than a broad one."""
    rows, columns = (torch.nonzero((lines[0] >= INK).any(1 - axis)).flatten() for axis in (0, 1))
    if not len(rows):
        return lines.new_zeros(1, size, size)
    drawn = lines[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = drawn.shape[1:]
    side = math.ceil(max(height, width) * (1 + 2 * MARGIN))
    top, left = (side - height) // 2, (side - width) // 2
    square = F.pad(drawn, (left, side - width - left, top, side - height - top))
    if side > size:
        return F.adaptive_max_pool2d(square, size)
    return F.interpolate(square[None], (size, size), mode="bilinear", align_corners=False)[0]


def redrawn(lines: Tensor, seed: int) -> Tensor:
    """Lines (1, S, S) as another hand may draw them: turned, bent, with a broader pen, without details, in part. The
    same for a seed."""
    rng = np.random.default_rng(seed)
    size = lines.shape[-1]
    if rng.random() < SPARSE:
        lines = _without_details(lines, int(rng.integers(1, SHORTEST + 1)))
    turn, grow = rng.uniform(-TURN, TURN), 1 + rng.uniform(-GROWTH, GROWTH)
    wide, lean = 1 + rng.uniform(-LEAN, LEAN), rng.uniform(-LEAN, LEAN)
    cos, sin = grow * math.cos(turn), grow * math.sin(turn)
    affine = [[wide * cos, lean - sin, rng.uniform(-AWAY, AWAY)], [sin, cos / wide, rng.uniform(-AWAY, AWAY)]]
    grid = F.affine_grid(torch.tensor([affine], dtype=torch.float32), [1, 1, size, size], align_corners=False)
    knots = torch.from_numpy(rng.normal(0, WOBBLE, (1, 2, KNOTS, KNOTS)).astype(np.float32))
    bent = F.interpolate(knots, (size, size), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    moved = F.grid_sample(lines[None].float(), grid + bent, align_corners=False)[0]
    moved = (moved * rng.uniform(1, 2)).clamp(max=1)  # between pixels lines are fainter
    if rng.random() < BOLD:
        moved = F.max_pool2d(moved, 3, 1, 1)
    if rng.random() < CUT:
        height, width = (rng.uniform(0.1, HOLE, 2) * size).astype(int)
        top, left = (int(rng.integers(0, size - length)) for length in (height, width))
        moved[:, top : top + height, left : left + width] = 0
    return moved


def _without_details(lines: Tensor, longest: int) -> Tensor:
    """Without what hangs together in fewer pixels; all of a drawing that is nothing but details."""
    from scipy import ndimage  # only drawings in training ask for it, and no command should wait for it

    drawn = lines[0].numpy()
    parts, count = ndimage.label(drawn >= INK, np.ones((3, 3)))
    large = np.bincount(parts.ravel(), minlength=count + 1) >= longest
    large[0] = False
    return lines * torch.from_numpy(large[parts])[None] if large.any() else lines
