"""Pictures as they lie about: what a viewer shows is seen, and what was guessed is said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, TiffImagePlugin

from mmx.errors import InputError
from mmx.media.image import read_image, to_rgb
from mmx.media.notes import notes_of


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    buffer.seek(0)
    return buffer


def ramp(low: float, high: float, kind: type) -> np.ndarray:
    """(8, 256): from low to high."""
    return np.linspace(low, high, 256).astype(kind)[None].repeat(8, 0)


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[0, :, 0].astype(int)


def unsigned_tiff(values: np.ndarray) -> io.BytesIO:
    """An uncompressed TIFF of 32-bit unsigned samples, which Pillow reads and can't write."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 10 * 12 + 4)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, values.nbytes), (339, 3, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return io.BytesIO(head + values.astype("<u4").tobytes())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("float", lambda: encoded(Image.fromarray(ramp(-2.0, 6.0, np.float32)), "TIFF")),
        ("32 bits", lambda: encoded(Image.fromarray(ramp(0, 2_000_000_000, np.int32)), "TIFF")),
        ("32 bits below zero", lambda: encoded(Image.fromarray(ramp(-90_000, 90_000, np.int32)), "TIFF")),
        ("32 bits unsigned", lambda: unsigned_tiff(ramp(0, 4_294_967_040, np.uint32))),
        ("12 bits in 16", lambda: encoded(Image.fromarray(ramp(0, 4095, np.uint16)), "PNG")),
        ("10 bits in 16", lambda: encoded(Image.fromarray(ramp(0, 1023, np.uint16)), "TIFF")),
        ("14 bits in 32", lambda: encoded(Image.fromarray(ramp(0, 16383, np.int32)), "TIFF")),
    ],
)
def test_deep_samples_are_scaled_by_their_range(name: str, file) -> None:
    read = read_image(file())
    np.testing.assert_allclose(levels(read), np.arange(256), atol=1)
    assert len(notes_of(read)) == 1 and "range" in notes_of(read)[0]


def test_eight_bits_in_sixteen_and_sixteen_bits_need_no_guess() -> None:
    for high in (255, 65_535):
        read = read_image(encoded(Image.fromarray(ramp(0, high, np.uint16)), "PNG"))
        np.testing.assert_allclose(levels(read), np.arange(256), atol=1)
        assert notes_of(read) == ()


def test_what_is_no_number_is_black_and_spoils_nothing() -> None:
    values = ramp(0.0, 1.0, np.float32)
    values[4:, :100] = np.nan
    values[5, 100] = np.inf
    read = read_image(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(levels(read), np.arange(256), atol=1)
    assert np.asarray(read)[5, :101].max() == 0 and "401" in notes_of(read)[0]
    with pytest.raises(InputError, match="damaged"):
        read_image(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_a_constant_float_picture() -> None:
    assert to_rgb(Image.fromarray(np.full((4, 4), 7.0, np.float32))).size == (4, 4)


@pytest.mark.parametrize("turned", [1, 6])
def test_a_tag_that_can_be_read_and_not_written_does_not_stop_the_turning(turned: int) -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("red", (0, 0, 10, 20))
    # numbers below zero in tags that Pillow writes as unsigned ones
    tags = [struct.pack("<HHIHH", 0x0112, 3, 1, turned, 0), struct.pack("<HHIi", 0x0106, 9, 1, -5)]
    tags += [struct.pack("<HHII", 0x0111, 4, 1, 7), struct.pack("<HHIi", 0x0103, 8, 1, -1)]
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(sorted(tags)) + bytes(4)
    file = encoded(image, "JPEG", exif=exif, quality=95)
    with pytest.raises(Exception):  # noqa: B017  (what Pillow raises is its own affair)
        Image.open(file).getexif().tobytes()
    file.seek(0)
    assert read_image(file).size == ((20, 40) if turned == 6 else (40, 20))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_set_upright(orientation: int) -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # Pillow's transpositions that undo it
    stored = image if back is None else image.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(encoded(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(read)[:, :, 0], np.asarray(image))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_megabytes_of_text_is_sound(kind: bytes) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8))
    png = encoded(image, "PNG").getvalue()
    packed = zlib.compress(bytes(3 << 20))
    body = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0\0\0", b"iCCP": b"icc\0\0"}[kind] + packed
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    read = read_image(io.BytesIO(png[:33] + chunk + png[33:]), name="x")
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


def test_a_format_that_runs_a_program_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        pytest.fail("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    path = tmp_path / "innocent.png"
    Image.new("RGB", (8, 8), "red").save(path, format="EPS")
    with pytest.raises(InputError, match="not a picture in a format"):
        read_image(path)
    for kind in ("ICNS", "PPM", "TGA", "PCX"):
        with pytest.raises(InputError, match="not a picture in a format"):
            read_image(encoded(Image.new("RGB", (16, 16), "red"), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_the_suffix_of_a_picture_says_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    Image.new("RGB", (16, 16), "red").save(path, format=kind)
    assert read_image(path).getpixel((8, 8))[0] > 200


def test_a_huge_picture_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(InputError, match="3072 MiB"):
        read_image(path)


def test_anything_a_reader_raises_is_a_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError("a reader's own bug")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", broken)
    with pytest.raises(InputError, match="x: the picture is damaged"):
        read_image(encoded(Image.new("RGB", (8, 8)), "TIFF"), name="x")
