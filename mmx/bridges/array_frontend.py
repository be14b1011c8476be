"""How arrays of numbers are seen: series in windows of their own rate, maps squared to one size, each channel
standardised by what the training set held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.drawings import as_drawing, filling, redrawn
from mmx.bridges.frontends import Cached
from mmx.errors import InputError
from mmx.media.arrays import arranged, as_depth, read_array

WINDOWS = 3  # of a series, evenly spread, whose points are averaged
LONGEST = 16  # windows of a series in the cache; what comes after is cut
SHIFT = 4  # pixels that a map is moved by in training, either way
SEEDS = 1 << 24  # places of a draw that differ
OUTLIER = 10.0  # standard deviations, beyond which nothing goes


@dataclass(frozen=True)
class ArrayKind:
    """What arrays a bridge takes.

    axes: 1 for series (C, T), 2 for maps (C, H, W); channels: C; size: points of a window, or pixels of a side; depth:
    whether they are distances; drawing: whether they are lines on paper; mean, std (C,): of the training set.
    """

    axes: int
    channels: int
    size: int
    depth: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    drawing: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As a bridge's config keeps it."""
        return asdict(self)


class Arrays:
    """Standardised windows of a series (W, C, T), or a map and its mirror image (2, C, S, S); in the cache raw values,
    float32: (F, C), or (1, C, S, S), NaN where nothing was measured."""

    can_mix = False
    networks: tuple[nn.Module, ...] = ()

    def __init__(self, kind: ArrayKind) -> None:
        self.kind, self.count = kind, WINDOWS if kind.axes == 1 else 2
        shape = f"{kind.axes}d-{kind.channels}" + (f"x{kind.size}" if kind.axes == 2 else "")
        self.name = f"array-{shape}{'-depth' if kind.depth else '-drawing' if kind.drawing else ''}-v1"
        suffix = (kind.channels,) if kind.axes == 1 else (kind.channels, kind.size, kind.size)
        self.empty = torch.zeros(0, *suffix)

    def measured(self, rows: Sequence[Tensor]) -> Arrays:
        """The same, which standardises by the mean and deviation of rows (L, ...) of the cache."""
        values = torch.cat([self._channels(row) for row in rows], 1).double()
        mean = values.nanmean(1).nan_to_num()
        std = (values - mean[:, None]).square().nanmean(1).sqrt().nan_to_num(1.0).clamp(min=1e-6)
        own = {"mean": mean, "std": std}
        return Arrays(replace(self.kind, **{k: tuple(float(f"{x:.7g}") for x in v.tolist()) for k, v in own.items()}))

    def _channels(self, row: Tensor) -> Tensor:
        """A row (L, ...) → its values by channel (C, N)."""
        return row.T if self.kind.axes == 1 else row.transpose(0, 1).flatten(1)

    def read(self, array: np.ndarray, name: str) -> np.ndarray:
        """An array as it was read → (C, T) or (C, H, W) float32. Raises InputError for one of another kind."""
        if self.kind.drawing:
            array = as_drawing(array, name)
        elif self.kind.depth:
            array = as_depth(array)
        return arranged(array, self.kind.axes, self.kind.channels, name)

    def prepare(self, medium: np.ndarray) -> Tensor:
        """An array as it was read → (W, C, T) or (2, C, S, S)."""
        return self.windows(self.row(self.read(medium, "the array")))

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        """Files → rows of the cache; None for what can't be used."""
        return [self._row_or_none(payload, name) for payload, name in zip(payloads, names, strict=True)]

    def _row_or_none(self, payload: bytes, name: str) -> Tensor | None:
        try:
            return self.row(self.read(read_array(payload, name), name))
        except InputError:
            return None

    def row(self, array: np.ndarray) -> Tensor:
        """(C, T) → (T', C), at least a window and at most LONGEST; (C, H, W) → (1, C, S, S)."""
        values, size = torch.from_numpy(array), self.kind.size
        if self.kind.axes == 2:
            return (filling if self.kind.drawing else squared)(values, size)[None]
        times = -(-size // values.shape[1])  # a short series is repeated, as a short sound is
        return values.repeat(1, times)[:, : max(size, min(values.shape[1], LONGEST * size))].T.contiguous()

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """A window (C, T) of a series; a map (C, S, S) or its mirror image, moved by a few pixels; a drawing as another
        hand may have drawn it."""
        size = self.kind.size
        if self.kind.axes == 1:
            return rows.get(pick, int(place * (rows.length(pick) - size + 1)), size).T
        if self.kind.drawing:
            return redrawn(rows.get(pick)[0].flip(2) if place >= 0.5 else rows.get(pick)[0], int(place * SEEDS))
        whole, step = rows.get(pick)[0], int(place * 2 * (2 * SHIFT + 1) ** 2)
        mirrored, step = divmod(step, (2 * SHIFT + 1) ** 2)
        down, across = divmod(step, 2 * SHIFT + 1)
        padded = F.pad(whole[None], (SHIFT,) * 4, mode="replicate")[0]
        moved = padded[:, down : down + size, across : across + size]
        return moved.flip(2) if mirrored else moved

    def finish(self, crops: Tensor) -> Tensor:
        """Raw values (B, C, ...) → standardised; where nothing was measured, the mean."""
        own = (self.kind.mean, self.kind.std)
        mean, std = (torch.tensor(values).view(-1, *(1,) * self.kind.axes) for values in own)
        return ((crops - mean) / std).nan_to_num(0.0).clamp(-OUTLIER, OUTLIER)

    def windows(self, row: Tensor) -> Tensor:
        """A whole row → (W, C, T) or (2, C, S, S)."""
        if self.kind.axes == 2:
            return self.finish(torch.cat((row, row.flip(3))))
        starts = torch.linspace(0, len(row) - self.kind.size, WINDOWS).round().long().tolist()
        return self.finish(torch.stack([row[start : start + self.kind.size].T for start in starts]))


def squared(values: Tensor, size: int) -> Tensor:
    """(C, H, W) with NaN where nothing was measured → its largest centred square, resampled (C, size, size): of each
    pixel the mean over what was measured there."""
    side = min(values.shape[1:])
    top, left = ((length - side) // 2 for length in values.shape[1:])
    square = values[:, top : top + side, left : left + side][None]
    there = square.isfinite().float()
    if side != size:
        mode = {"mode": "area"} if side > size else {"mode": "bilinear", "align_corners": False}
        square, there = (F.interpolate(x, (size, size), **mode) for x in (square.nan_to_num(0.0) * there, there))
        square = square / there
    return torch.where(there > 0, square, torch.nan)[0]
