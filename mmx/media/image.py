"""Bytes ↔ RGB pictures. Everything a picture file can hide (rotation, alpha, depth, bombs) is dealt with here."""

from __future__ import annotations

import importlib.util
import io
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmx.errors import DamagedError, InputError, NotAPictureError
from mmx.media.audio import opened
from mmx.media.findings import Note
from mmx.media.formats import MAX_PIXELS, PICTURES, PICTURES_SAID
from mmx.media.notes import NOTES

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what sets a picture upright, by its EXIF orientation
ORIENTATION, SAMPLE_FORMAT = 0x0112, 339  # tags of EXIF and of TIFF
UNSIGNED = (None, 1, (1,))  # sample formats of TIFF
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_ASIDE = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks that Pillow limits in size, and that no pixel depends on here
DEPTHS = (8, 10, 12, 14, 16)  # bits a sample that are in use


def read_image(source: Path | str | bytes | BinaryIO, *, name: str | None = None) -> Image.Image:
    """Decode a picture to 8-bit RGB: upright, alpha on white, the first frame of an animation.

    What the user should know of it is in its `info` under NOTES. Raises InputError for what is not a whole, sane
    picture.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "stdin")
    try:
        with opened(source if isinstance(source, (str, Path, bytes)) else source.read(), name) as file:
            try:
                return _decoded(file, name)
            except ValueError:
                file.seek(0)
                if file.read(8) != PNG_MAGIC:
                    raise
                file.seek(0)
                return _decoded(io.BytesIO(_without_texts(file.read())), name)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise NotAPictureError(f"{name}: not a picture in a format I can read", hint=PICTURES_SAID) from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: too many pixels", hint=f"at most {MAX_PIXELS // 1_000_000} megapixels") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise anything, from struct.error to IndexError
        raise DamagedError(f"{name}: the picture is damaged or cut short", hint=str(error)) from None


def _decoded(file: BinaryIO, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels from 89 megapixels on, of odd tags
        with Image.open(file, formats=picture_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{name}: {image.width}x{image.height} pixels are too many",
                    hint=f"at most {MAX_PIXELS // 1_000_000} megapixels; scale it down first",
                )
            image.load()  # verify() passes truncated files, load() does not
            turn = TURNS.get(_orientation(image))
            return to_rgb(image if turn is None else image.transpose(turn))


@cache
def picture_formats() -> tuple[str, ...]:
    """The allowed formats of which this installation has a reader."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(kind for kind in PICTURES if kind in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF that can't be read turns nothing, as in viewers; its readers raise anything
        return 1


def _without_texts(data: bytes) -> bytes:
    """A PNG without the chunks that hold text and colour profiles."""
    kept, at = [data[:8]], 8
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in PNG_ASIDE:
            kept.append(data[at : at + size + 12])
        at += size + 12
    return b"".join(kept)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode → RGB, without clipping deep values and without showing colours hidden under alpha."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Samples of more than 8 bits → RGB: whole numbers by the bits that are in use, others by their range."""
    values, note = np.asarray(image if image.mode in ("I", "F") else image.convert("I")), ""
    if image.mode == "I" and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT) in UNSIGNED and values.min() < 0:
        values = values.view(np.uint32)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of its samples is a number")
    low, high = values[finite].min(), values[finite].max()
    if image.mode == "F" or low < 0 or high > 0xFFFF:
        span = float(high) - float(low) or 1.0
        # rounded to float32 on the way, as Pillow does
        scaled = (np.where(finite, values, low).astype(float) * (255 / span) - float(low) * 255 / span).astype(
            np.float32
        )
        note = f"its samples are from {low:.6g} to {high:.6g}: that range is shown as black to white"
        if not finite.all():
            note += f", and the {np.count_nonzero(~finite)} that are not numbers as black"
    else:
        bits = next(bits for bits in DEPTHS if high < 1 << bits)
        scaled = values * (255 / ((1 << bits) - 1)) + (0.5 if bits > 8 else 0.0)
        if 8 < bits < 16:
            note = f"its samples use {bits} bits: they are shown by that range"
    shown = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).convert("RGB")
    if note:
        shown.info[NOTES] = (Note("range", note),)
    return shown


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resampled to `size` x `size`."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.LANCZOS)


def png_bytes(image: Image.Image, text: dict[str, str] | None = None) -> bytes:
    """Encode as PNG with text chunks. The same picture and text give the same bytes."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info, optimize=False)
    return buffer.getvalue()


def grid(images: list[Image.Image], columns: int | None = None, gap: int = 2) -> Image.Image:
    """Pictures of one size as a contact sheet, row by row, nearly square unless `columns` is given."""
    columns = columns or max(1, round(len(images) ** 0.5 + 0.499))
    rows = -(-len(images) // columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * (width + gap), index // columns * (height + gap)))
    return sheet
