"""What is in files of arrays: names, shapes, statistics, and what one looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmx.errors import InputError
from mmx.media.arrays import read_array
from mmx.media.show import palette

SAFE = ".safetensors"
SUFFIXES = (SAFE, ".npy", ".npz", ".csv")
SIDE = 512  # pixels, of a drawing, at least where an array is smaller
MOST = 2048  # rows and columns that are drawn of a larger one, evenly chosen


@dataclass(frozen=True)
class Array:
    """One array of a file. values: None of a type that numpy lacks, such as bfloat16 and float8."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: np.ndarray | None

    def line(self) -> str:
        """What it is, and of which numbers it consists."""
        head = f"{self.name}  {' x '.join(map(str, self.shape)) or 'one number'}  {self.dtype}"
        if self.values is None or not self.values.size or self.values.dtype.kind not in "biuf":
            return head
        numbers = self.values.astype(np.float64)
        good = numbers[np.isfinite(numbers)]
        if not good.size:
            return f"{head}  nothing finite"
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the largest
            found = f"{head}  min {good.min():.4g}  mean {good.mean():.4g}  max {good.max():.4g}  std {good.std():.4g}"
        return found + (f"  {numbers.size - good.size} not finite" if good.size < numbers.size else "")


def read_tensors(data: bytes, name: str) -> list[Array]:
    """The arrays of a .safetensors file, or the one that `read_array` finds in any other. Raises InputError."""
    if not name.lower().endswith(SAFE):
        values = read_array(data, name)
        return [Array("array", values.shape, str(values.dtype), values)]
    try:
        return _safetensors(data)
    except (ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: its arrays can't be read: {said}") from None


def _safetensors(data: bytes) -> list[Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        known = load(data)
    except (TypeError, AttributeError, KeyError):  # a type that numpy lacks
        known = {}
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about.pop("__metadata__", None)
    return [Array(key, tuple(row["shape"]), row["dtype"], known.get(key)) for key, row in sorted(about.items())]


def draw_array(array: Array) -> Image.Image:
    """An array (..., R, C) as R rows of C cells, from its least number (dark) to its largest (light); what is not
    finite is grey. Of more than two axes the first are joined. Raises InputError where there is nothing to draw.
    """
    if array.values is None or not array.values.size or array.values.dtype.kind not in "biuf":
        raise InputError(f"{array.name}: there is nothing to draw of {array.dtype}")
    last = array.shape[-1] if array.shape else 1
    table = _thinned(array.values.reshape(-1, last).astype(np.float64))
    good = np.isfinite(table)
    low, high = (table[good].min(), table[good].max()) if good.any() else (0.0, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        shade = np.nan_to_num((table - low) / max(high - low, 1e-300)).clip(0, 1)
    pixels = palette()[(255 * shade).astype(np.uint8)]
    pixels[~good] = 128
    factor = max(1, SIDE // max(table.shape))
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _thinned(table: np.ndarray) -> np.ndarray:
    """At most MOST rows and columns of a table (R, C)."""
    rows, columns = (np.linspace(0, size - 1, min(size, MOST)).astype(int) for size in table.shape)
    return table[rows][:, columns]
