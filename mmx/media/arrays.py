"""Bytes → arrays of numbers: .npy, .npz, CSV, and pictures whose samples are measurements (depth, heat).

Nothing in a file is executed, and nothing is read before it is known how large it is.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError

import numpy as np
from PIL import Image, ImageDraw

from mmx.errors import InputError
from mmx.media.formats import MAX_BYTES, MAX_PIXELS
from mmx.media.image import to_rgb

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
# by their first four bytes; JPEG's fourth says which kind
PICTURES = {b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF"} | {
    b"\xff\xd8\xff" + bytes([kind]): "JPEG" for kind in (0xDB, 0xE0, 0xE1, 0xE2, 0xEE)
}
MAX_VALUES = 1 << 27  # of one array: 512 MiB as float32
LONG = 4  # times as long as the other axis: two axes are a series of channels, and not a map
COLOURS = 4  # channels, at most, that may be the last of three axes
READS = ".npy, .npz, .csv, and pictures of one or three channels (PNG, TIFF, JPEG) work"
NEAREST, FARTHEST = 0.1, 10.0  # metres


def read_array(source: Path | bytes, name: str) -> np.ndarray:
    """A file, or its bytes, by what is in it → an array of one to three axes, of its own whole numbers or of floats.

    Raises InputError for what is none: other types, sizes that lie, several arrays, cells that are no numbers.
    """
    data = _bytes_of(source, name) if isinstance(source, Path) else source
    if data.startswith(NPY):
        found = _npy(io.BytesIO(data), len(data), name)
    elif data.startswith(ZIP):
        found = _npz(data, name)
    elif data[:4] in PICTURES:
        found = _picture(data, name)
    else:
        found = _csv(data, name)
    if not found.size or found.ndim not in (1, 2, 3):
        raise InputError(f"{name}: an array of shape {found.shape}", hint="(T,), (C, T), (H, W) and (C, H, W) work")
    if found.dtype.kind == "f" and not np.isfinite(found).any():
        raise InputError(f"{name}: none of its values is a number")
    return found


def _bytes_of(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: more than 1 GiB", hint="cut it first")
    return data


def _npy(file: io.BufferedIOBase | io.BytesIO | zipfile.ZipExtFile, size: int, name: str) -> np.ndarray:
    """A .npy file of `size` bytes, whose header says what must follow it."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError, EOFError, OSError, SyntaxError, TokenError, zipfile.BadZipFile) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: its header can't be read: {said}") from None
    if dtype.kind not in "biuf":
        raise InputError(f"{name}: an array of type {dtype}", hint="numbers work: integers and floats")
    count = math.prod(shape)
    if count > MAX_VALUES:
        raise InputError(f"{name}: {count} values are too many", hint=f"at most {MAX_VALUES}")
    if count * dtype.itemsize > size:
        raise InputError(f"{name}: its header says {list(shape)} of {dtype}, and there is less", hint="is it cut?")
    try:
        data = file.read(count * dtype.itemsize)
    except (OSError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise InputError(f"{name}: it can't be read: {error}") from None
    if len(data) < count * dtype.itemsize:
        raise InputError(f"{name}: its header says {list(shape)} of {dtype}, and there is less", hint="is it cut?")
    found = np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(found, found.dtype.newbyteorder("="))


def _npz(data: bytes, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if len(members) != 1:
                names = ", ".join(member.filename.removesuffix(".npy") for member in members[:5]) or "none"
                raise InputError(f"{name}: one array is wanted, and it holds: {names}", hint="save the one you mean")
            with archive.open(members[0]) as file:
                return _npy(file, members[0].file_size, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{name}: not a whole .npz file: {error}", hint=READS) from None


def _picture(data: bytes, name: str) -> np.ndarray:
    """Samples as they are: (H, W) of one channel, (3, H, W) of colours; nothing that is hidden under alpha."""
    try:
        with Image.open(io.BytesIO(data), formats=[PICTURES[data[:4]]]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{name}: {image.width}x{image.height} pixels are too many")
            image.load()
            plain = image if image.mode in ("L", "I", "F") or image.mode.startswith("I;16") else to_rgb(image)
            found = np.asarray(plain)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise anything
        raise InputError(f"{name}: the picture is damaged or cut short", hint=str(error)) from None
    return found if found.ndim == 2 else np.ascontiguousarray(found.transpose(2, 0, 1))


def _csv(data: bytes, name: str) -> np.ndarray:
    """Numbers, a row a line: (T,) of one column or one row, else (rows, columns). Integers where all are."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{name}: no array that I can read", hint=READS) from None
    rows: list[list[float]] = []
    for number, cells in _cells(text):
        row = _numbers(cells)
        if row is None:
            if not rows and not any(_is_number(cell) for cell in cells):
                continue  # headings
            bad = next(cell for cell in cells if not _is_number(cell))
            raise InputError(f"{name}:{number}: {bad!r} is not a number", hint=READS)
        if rows and len(row) != len(rows[0]):
            raise InputError(f"{name}:{number}: {len(row)} values, and the rows before have {len(rows[0])}")
        rows.append(row)
    if not rows:
        raise InputError(f"{name}: no array that I can read", hint=READS)
    found = np.array(rows)
    if np.isfinite(found).all() and np.abs(found).max() < 1 << 53 and (found == np.round(found)).all():
        found = found.astype(np.int64)
    return found[0] if len(found) == 1 else found[:, 0] if found.shape[1] == 1 else found


def _cells(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a CSV text, separated as its first line with several cells is."""
    sign = next((sign for sign in (",", ";", "\t") if sign in text.partition("\n")[0]), None)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, [cell.strip() for cell in line.split(sign)]


def _is_number(cell: str) -> bool:
    return _numbers([cell]) is not None


def _numbers(cells: list[str]) -> list[float] | None:
    """Cells as numbers, an empty one as none that was measured; None where one is something else."""
    try:
        return [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return None


def axes_of(array: np.ndarray) -> tuple[int, int]:
    """How many axes an array has beside its channels (1: a series, 2: a map), and how many channels."""
    if array.ndim == 1:
        return 1, 1
    if array.ndim == 2:
        short, long = sorted(array.shape)
        return (1, short) if long >= LONG * short else (2, 1)
    last, first = array.shape[-1], array.shape[0]
    return 2, last if last <= COLOURS < first else first


def arranged(array: np.ndarray, axes: int, channels: int, name: str) -> np.ndarray:
    """An array → float32 (C, T), or (C, H, W) for `axes` 2; where it is not clear which axis is which, the longer one
    is time, and colours may be last. What is not finite is NaN.

    Raises InputError where it has other axes or channels.
    """
    found = _by_axes(array, axes, channels)
    if found is None:
        wanted = f"({channels}, T)" if axes == 1 else f"({channels}, H, W)"
        raise InputError(f"{name}: an array of shape {array.shape}", hint=f"this wants {wanted}")
    found = found.astype(np.float32)
    found[~np.isfinite(found)] = np.nan
    return found


def _by_axes(array: np.ndarray, axes: int, channels: int) -> np.ndarray | None:
    if axes == 1:
        if array.ndim == 1:
            return array[None] if channels == 1 else None
        if array.ndim != 2 or channels not in array.shape:
            return None
        return array if array.shape[0] == channels and array.shape[1] >= channels else array.T
    if array.ndim == 2:
        return array[None] if channels == 1 else None
    if array.ndim != 3:
        return None
    if array.shape[0] == channels:
        return array
    return array.transpose(2, 0, 1) if array.shape[-1] == channels else None


def as_depth(array: np.ndarray) -> np.ndarray:
    """Distances → disparity in 1/m, as ImageBind (Girdhar et al. 2023) sees depth.

    Whole numbers are millimetres, others metres; what is farther than 10 m counts as 10 m; zero and below was not
    measured, and is NaN.
    """
    metres = array / 1000 if array.dtype.kind in "iu" else array
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(metres > 0, 1 / np.clip(metres, NEAREST, FARTHEST), np.nan).astype(np.float32)


def picture_of(array: np.ndarray, height: int = 96) -> Image.Image:
    """An array as a person may look at it: a map from black to white by its range, of a series the curves, one below
    the other."""
    axes, channels = axes_of(array)
    values = arranged(array, axes, channels, "the array")
    low, high = (np.nan_to_num(f(values.reshape(channels, -1), 1)) for f in (np.nanmin, np.nanmax))
    span = np.where(high > low, high - low, 1.0)
    shape = (-1, *(1,) * axes)
    levels = np.nan_to_num((values - low.reshape(shape)) / span.reshape(shape))
    if axes == 2:
        shown = levels[:3] if channels >= 3 else levels[:1].repeat(3, 0)
        return Image.fromarray((shown * 255).astype(np.uint8).transpose(1, 2, 0))
    drawn = Image.new("RGB", (4 * height, channels * height), "white")
    for row, curve in enumerate(levels):
        across = np.linspace(0, drawn.width - 1, len(curve))
        down = row * height + 2 + (1 - curve) * (height - 5)
        ImageDraw.Draw(drawn).line([*zip(across.tolist(), down.tolist(), strict=True)], fill="black")
    return drawn
