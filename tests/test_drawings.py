"""Line drawings: the same whatever they are drawn with, varied in training, and a modality of their own."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mmx.bridges.array_frontend import ArrayKind, Arrays
from mmx.bridges.base import BridgeConfig
from mmx.bridges.drawings import INK, as_drawing, filling, redrawn
from mmx.errors import InputError
from mmx.media.arrays import read_array
from tests.test_arrays import Held

SIZE = 64
SEEN = Arrays(ArrayKind(2, 1, SIZE, drawing=True, mean=(0.0,), std=(1.0,)))


def drawn(side: int = 256, width: int = 3, ink: object = "black", paper: object = "white", mode: str = "RGB") -> Image:
    """A house at (60, 40) to (200, 220) of 256, in any pen on any paper."""
    picture = Image.new(mode, (side, side), paper)
    points = [(60, 110), (130, 40), (200, 110), (200, 220), (60, 220), (60, 110), (200, 110)]
    ImageDraw.Draw(picture).line([(x * side / 256, y * side / 256) for x, y in points], fill=ink, width=width)
    return picture


def array_of(picture: Image.Image, kind: str = "PNG") -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return read_array(buffer.getvalue(), "a")


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (drawn(ink="white", paper="black"), "PNG"),
        (drawn(ink=0, paper=255, mode="L"), "PNG"),
        (drawn(ink=(0, 0, 0, 255), paper=(0, 0, 0, 0), mode="RGBA"), "PNG"),
        (drawn(ink="navy", paper="khaki"), "PNG"),
        (drawn(), "JPEG"),
        (drawn(ink=0, paper=1, mode="1"), "TIFF"),
    ],
)
def test_lines_are_the_same_with_any_pen_on_any_paper(picture: Image.Image, kind: str) -> None:
    plain, other = (SEEN.prepare(array) for array in (array_of(drawn()), array_of(picture, kind)))
    assert plain.shape == (2, 1, SIZE, SIZE) and torch.equal(plain[1], plain[0].flip(2))
    assert ((plain >= INK) == (other >= INK)).float().mean() > 0.99 and (plain - other).abs().mean() < 0.03


def test_a_drawing_fills_its_square_and_fine_lines_stay() -> None:
    small = drawn()
    page = Image.new("RGB", (900, 500), "white")
    page.paste(small.crop((50, 30, 210, 230)), (20, 250))  # in a corner of a large sheet
    far, near = (SEEN.prepare(array_of(picture))[0, 0] for picture in (page, small))
    assert (far - near).abs().mean() < 0.03
    rows = torch.nonzero((near >= INK).any(1)).flatten()
    assert rows[0] < 6 and rows[-1] > SIZE - 7
    fine = SEEN.prepare(array_of(drawn(1024, width=2)))[0]
    assert fine.max() > 0.95 and 0.5 < (fine >= INK).sum() / (near >= INK).sum() < 1.2
    assert not filling(torch.zeros(1, 9, 7), SIZE).any() and not SEEN.prepare(np.full((8, 8), 7)).any()


def test_what_is_no_drawing_is_refused() -> None:
    with pytest.raises(InputError, match="no drawing"):
        as_drawing(np.zeros(50), "a")
    assert as_drawing(np.zeros((20, 30, 3)), "a").shape == as_drawing(np.zeros((3, 20, 30)), "a").shape == (20, 30)


def test_a_drawing_is_varied_in_training_and_stays_what_it_is() -> None:
    row = SEEN.row(SEEN.read(array_of(drawn()), "a"))
    places = np.linspace(0, 0.4999, 30)
    others = torch.stack([SEEN.crop(Held(row), 0, float(place)) for place in places])
    again = torch.stack([SEEN.crop(Held(row), 0, float(place)) for place in places])
    assert torch.equal(others, again) and len({other.numpy().tobytes() for other in others}) == 30
    assert others.min() >= 0 and others.max() <= 1 and others.shape == (30, 1, SIZE, SIZE)
    mean, where = others.mean(0), torch.nn.functional.avg_pool2d(row, 9, 1, 4)[0]
    assert (mean * where).sum() / (mean.norm() * where.norm()) > 0.7  # on the whole where it was
    assert torch.equal(SEEN.crop(Held(row), 0, 0.75), redrawn(row[0].flip(2), int(0.75 * (1 << 24))))


def test_details_and_parts_may_be_left_out_but_never_all() -> None:
    dots = torch.zeros(1, SIZE, SIZE)
    dots[:, 4::6, 4::6] = 1
    assert all(redrawn(dots, seed).any() for seed in range(20))
    line = torch.zeros(1, SIZE, SIZE)
    line[:, 30, 8:56] = 1
    line[:, 10, 10] = 1  # a speck
    top = [float(redrawn(line, seed)[:, :20].max()) for seed in range(40)]
    assert 5 <= sum(value < 0.1 for value in top) <= 35


def test_a_bridge_from_drawings_says_so() -> None:
    kind = SEEN.kind.as_dict()
    assert kind["drawing"] and Arrays(ArrayKind(**kind)).name == "array-2d-1x64-drawing-v1"
    config = BridgeConfig("array2img", {}, array=kind)
    assert ArrayKind(**config.array).drawing
    del kind["drawing"]  # of earlier versions
    assert Arrays(ArrayKind(**kind)).name == "array-2d-1x64-v1"
