"""Bytes ↔ RGB pictures. Everything a picture file can hide (rotation, alpha, depth, bombs) is dealt with here."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from mmx.errors import InputError

MAX_PIXELS = 100_000_000  # 100 Mpx; Pillow itself only warns below 179 Mpx


def read_image(source: Path | str | BinaryIO, *, name: str | None = None) -> Image.Image:
    """Decode a picture to 8-bit RGB: upright, alpha on white, the first frame of an animation.

    Raises InputError for anything that is not a whole, sane picture.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "stdin")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(
                        f"{name}: {image.width}x{image.height} pixels are too many",
                        hint=f"at most {MAX_PIXELS // 1_000_000} megapixels; scale it down first",
                    )
                image.load()  # verify() passes truncated files, load() does not
                return to_rgb(ImageOps.exif_transpose(image))
        except InputError:
            raise
        except UnidentifiedImageError:
            raise InputError(
                f"{name}: not a picture in a format I can read", hint="PNG, JPEG, WebP, GIF, TIFF and BMP work"
            ) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise InputError(f"{name}: too many pixels", hint=f"at most {MAX_PIXELS // 1_000_000} megapixels") from None
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
            if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
                raise InputError(f"{name}: {error.strerror}") from None
            raise InputError(f"{name}: the picture is damaged or cut short", hint=str(error)) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode → RGB, without clipping 16-bit values and without showing colours hidden under alpha."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        wide = image.convert("I")
        # 16-bit files scale by 257; "I" may also hold 8-bit values, which then stay as they are
        scale = 1 / 257 if image.mode != "I" or (wide.getextrema()[1] or 0) > 255 else 1.0
        return wide.point(lambda value: value * scale + 0.5).convert("L").convert("RGB")
    if image.mode == "F":
        low, high = image.getextrema()
        span = (high - low) or 1.0
        return image.point(lambda value: value * (255 / span) - low * 255 / span).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


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
