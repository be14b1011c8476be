"""Pictures that hide something."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmx.errors import InputError
from mmx.media.image import fit_square, grid, png_bytes, read_image


def encoded(image: Image.Image, kind: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    buffer.seek(0)
    return buffer


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("red", (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    read = read_image(encoded(image, "JPEG", exif=exif, quality=95))
    assert read.size == (20, 40) and read.getpixel((10, 4))[0] > 200 and read.getpixel((10, 35))[0] < 50


def test_alpha_is_white_and_hides_its_colour() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert read_image(encoded(image, "PNG")).getpixel((4, 4)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([200, 0, 0] * 256)
    assert read_image(encoded(palette, "PNG", transparency=3)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257)[None].repeat(4, 0)
    read = np.asarray(read_image(encoded(Image.fromarray(ramp), "PNG")))
    np.testing.assert_allclose(read[0, :, 0].astype(int), np.arange(256), atol=1)


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("RGB", "BMP"), ("LA", "PNG")]
)
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    assert read_image(encoded(Image.new("RGB", (9, 7), (10, 200, 30)).convert(mode), kind)).mode == "RGB"


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0))[0] > 200


def test_damaged_pictures_are_refused() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, "JPEG").getvalue()
    for data in (b"", b"nothing", whole[: len(whole) // 2], encoded(noise, "PNG").getvalue()[:500]):
        with pytest.raises(InputError):
            read_image(io.BytesIO(data), name="x")


def test_bombs_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmx.media.image.MAX_PIXELS", 100)
    with pytest.raises(InputError, match="too many"):
        read_image(encoded(Image.new("RGB", (20, 20)), "PNG"))


def test_square_and_grid() -> None:
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (25, 0, 75, 50))
    assert np.asarray(fit_square(image, 10)).min() > 200  # the centre, not squeezed
    sheet = grid([Image.new("RGB", (4, 4), c) for c in ("red", "green", "blue")], 2)
    assert sheet.size == (10, 10) and sheet.getpixel((6, 0)) == (0, 128, 0) and sheet.getpixel((0, 6)) == (0, 0, 255)


def test_png_bytes_are_a_function_of_picture_and_text() -> None:
    image = Image.new("RGB", (5, 5), "red")
    assert png_bytes(image, {"a": "ü"}) == png_bytes(image.copy(), {"a": "ü"}) != png_bytes(image, {"a": "b"})
