"""Arrays of numbers as files: what is read, and that nothing else is."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.bridges.array_frontend import ArrayKind, Arrays, squared
from mmx.data.edges import edges_of
from mmx.errors import InputError
from mmx.media.arrays import arranged, as_depth, axes_of, picture_of, read_array


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i2", "u1", "<u2", ">i8", "?"])
@pytest.mark.parametrize("shape", [(7,), (3, 20), (4, 5), (3, 4, 5)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) % 100).astype(dtype)
    for data in (npy(array), npy(np.asfortranarray(array)), npz(depth=array)):
        found = read_array(data, "a")
        assert np.array_equal(found, array) and found.dtype.isnative and found.dtype.kind == array.dtype.kind


def test_pictures_keep_the_depth_of_their_samples(tmp_path: Path) -> None:
    deep = np.array([[0, 1000], [40_000, 65_535]], np.uint16)
    assert np.array_equal(read_array(png(deep), "a.png"), deep)
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(read_array(png(colours), "a.png"), colours.transpose(2, 0, 1))
    heat = np.array([[21.5, 36.6]], np.float32)
    Image.fromarray(heat).save(tmp_path / "heat.tif")
    assert np.array_equal(read_array(tmp_path / "heat.tif", "heat.tif"), heat)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n5,6\n", [[1, 2], [3, 4], [5, 6]]),
        ("t;x\n1;2\n3;4", [[1, 2], [3, 4]]),
        ("\ufeff1\n2\n\n3\n", [1, 2, 3]),
        ("1\t2\t3", [1, 2, 3]),
        ("0.5,nan\n,-1e3\n", [[0.5, np.nan], [np.nan, -1000]]),
    ],
)
def test_csv_holds_numbers(text: str, expected: list) -> None:
    assert np.array_equal(read_array(text.encode(), "a.csv"), np.array(expected), equal_nan=True)


def cut(data: bytes) -> bytes:
    return data[:-5]


def lying(shape: str) -> bytes:
    """A header that promises more than there is."""
    data = npy(np.zeros(4, np.float32))
    return data.replace(b"(4,), ", f"({shape}), ".encode()).replace(b" " * (len(shape) - 2) + b"\n", b"\n", 1)


def bomb() -> bytes:
    """A few bytes that would become many."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        header = npy(np.zeros(0, np.uint8)).replace(b"(0,), ", b"(9999999999,), ").replace(b" " * 9 + b"\n", b"\n", 1)
        archive.writestr("a.npy", header + bytes(1 << 20))
    return buffer.getvalue()


BAD = {
    "pickled": (npy(np.array([{}, []], dtype=object)), "type object"),
    "a pickle": (pickle.dumps([1, 2]), "no array"),
    "complex": (npy(np.zeros(3, complex)), "complex"),
    "texts": (npy(np.array(["a", "b"])), "type"),
    "four axes": (npy(np.zeros((1, 2, 3, 4))), "shape"),
    "none": (npy(np.zeros((0, 4))), "shape"),
    "no number": (npy(np.full(4, np.nan)), "none of its values"),
    "cut": (cut(npy(np.zeros(400))), "there is less"),
    "a lying header": (lying("444444,"), "there is less"),
    "a huge header": (lying("99999999999,"), "too many"),
    "half a header": (npy(np.zeros(4))[:20], "header"),
    "several": (npz(a=np.zeros(3), b=np.zeros(3)), "a, b"),
    "a cut archive": (cut(npz(a=np.arange(1000.0))), "whole"),
    "a bomb": (bomb(), "too many"),
    "words": (b"1,2\n3,four\n", "a:2: 'four' is not a number"),
    "ragged": (b"x,y\n1,2\n3\n", "a:3: 1 values"),
    "headings alone": (b"x,y\n", "no array"),
    "empty": (b"", "no array"),
    "binary": (b"\xff\xfe\x00\x01", "no array"),
    "a cut picture": (png(np.zeros((64, 64), np.uint16))[:60], "damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_array_is_refused_in_one_line(case: str) -> None:
    data, said = BAD[case]
    with pytest.raises(InputError) as raised:
        read_array(data, "a")
    assert raised.value.message.startswith("a:") or raised.value.message.startswith("a ")
    assert said in raised.value.message and "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("shape", "axes", "channels", "becomes"),
    [
        ((500,), 1, 1, (1, 500)),
        ((12, 5000), 1, 12, (12, 5000)),
        ((5000, 12), 1, 12, (12, 5000)),
        ((28, 28), 2, 1, (1, 28, 28)),
        ((40, 100), 2, 1, (1, 40, 100)),
        ((3, 20, 30), 2, 3, (3, 20, 30)),
        ((20, 30, 3), 2, 3, (3, 20, 30)),
        ((9, 20, 30), 2, 9, (9, 20, 30)),
    ],
)
def test_axes_are_told_by_the_shape(shape: tuple, axes: int, channels: int, becomes: tuple) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    assert axes_of(array) == (axes, channels)
    found = arranged(array, axes, channels, "a")
    assert found.shape == becomes and found.dtype == np.float32
    assert picture_of(array).mode == "RGB"
    with pytest.raises(InputError, match=r"this wants|shape"):
        arranged(array, axes, channels + 1, "a")


def test_depth_is_seen_as_disparity() -> None:
    whole = as_depth(np.array([0, 50, 500, 2000, 9999, 10_000, 65_535], np.uint16))
    assert np.allclose(whole, [np.nan, 10, 2, 0.5, 0.10001, 0.1, 0.1], equal_nan=True)
    assert np.allclose(
        as_depth(np.array([0.0, -1, np.nan, 0.5, np.inf])), [np.nan, np.nan, np.nan, 2, 0.1], equal_nan=True
    )


def test_a_map_is_averaged_over_what_was_measured() -> None:
    values = torch.arange(64.0).view(1, 8, 8)
    values[0, :2, :2] = torch.nan
    values[0, 2, 2] = torch.nan
    found = squared(torch.nn.functional.pad(values, (2, 2), value=-9.0), 4)  # what is beside the square is cut off
    naive = values.reshape(1, 4, 2, 4, 2).nanmean((2, 4))
    assert torch.allclose(found, naive, equal_nan=True) and found[0, 0, 0].isnan() and not found[0, 1, 1].isnan()


def test_channels_are_standardised_by_the_training_set() -> None:
    rng = np.random.default_rng(0)
    arrays = [np.stack((rng.normal(5000, 10, 700), rng.normal(-0.01, 0.001, 700))) for _ in range(4)]
    arrays[0][0, :50] = np.nan
    plain = Arrays(ArrayKind(1, 2, 256))
    rows = [plain.row(plain.read(array, "a")) for array in arrays]
    known = plain.measured(rows)
    everything = np.concatenate(arrays, 1).astype(np.float32)
    assert np.allclose(known.kind.mean, np.nanmean(everything, 1), rtol=1e-4)
    assert np.allclose(known.kind.std, np.nanstd(everything, 1), rtol=1e-2)
    windows = torch.cat([known.prepare(array) for array in arrays])
    assert windows.shape == (12, 2, 256) and windows.isfinite().all()
    assert windows.mean((0, 2)).abs().max() < 0.1 and (windows.std((0, 2)) - 1).abs().max() < 0.1
    assert not windows[0, 0, :50].any()  # where nothing was measured, the mean
    short = known.prepare(arrays[1][:, :100])
    assert torch.equal(short[0, :, :100], short[0, :, 100:200])


class Held:
    def __init__(self, row: torch.Tensor) -> None:
        self.row = row

    def get(self, index: int, start: int = 0, count: int = 1 << 62) -> torch.Tensor:
        return self.row[start : start + count]

    def length(self, index: int) -> int:
        return len(self.row)


def test_crops_are_parts_of_what_they_are_cut_from() -> None:
    series = Arrays(ArrayKind(1, 1, 32, mean=(0.0,), std=(1.0,)))
    row = series.row(np.arange(100, dtype=np.float32)[None])
    assert [series.crop(Held(row), 0, place)[0, 0].item() for place in (0.0, 0.5, 0.999)] == [0, 34, 68]
    maps = Arrays(ArrayKind(2, 1, 16, mean=(0.0,), std=(1.0,)))
    row = maps.row(np.arange(256, dtype=np.float32).reshape(1, 16, 16))
    still = maps.crop(Held(row), 0, (4 * 9 + 4 + 0.5) / 162)
    assert torch.equal(still, row[0]) and torch.equal(maps.crop(Held(row), 0, 0.5 + (40 + 0.5) / 162), row[0].flip(2))
    moved = maps.crop(Held(row), 0, 0.0)
    assert torch.equal(moved[:, 4:, 4:], row[0, :, :-4, :-4])


def test_edges_are_where_the_picture_changes() -> None:
    picture = Image.new("RGB", (40, 40), "white")
    picture.paste("black", (10, 10, 30, 30))
    edges = np.asarray(edges_of(picture)) > 0
    assert not edges[14:26, 14:26].any() and not edges[:7].any() and not edges[:, 33:].any()
    assert edges[20, 8:12].any() and edges[20, 28:32].any() and edges[8:12, 20].any()
    assert edges[15:25, :20].sum(1).max() == 1  # one pixel wide
    assert not np.asarray(edges_of(Image.new("RGB", (40, 40), "gray"))).any()
