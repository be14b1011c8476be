"""The hits of a search as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from mmx.errors import InputError
from mmx.media.arrays import picture_of, read_array
from mmx.media.audio import read_audio
from mmx.media.files import kind_of_file
from mmx.media.formats import HEARD_WINDOW, SHORTEST
from mmx.media.image import grid, read_image
from mmx.media.show import View, draw_sound
from mmx.media.video import moments
from mmx.spaces.question import Hit, Row

SIDE, CAPTION, LETTERS = 192, 30, 31  # pixels of a cell and of the lines below it; letters in one of those


def draw_hits(hits: Sequence[Hit], query: str) -> Image.Image:
    """A contact sheet: each hit as it looks, with its score and name; a hit that is gone is an empty cell."""
    cells = [_cell(hit) for hit in hits] or [Image.new("RGB", (SIDE, SIDE + CAPTION), "white")]
    sheet = grid(cells, min(len(cells), 5), gap=6)
    drawn = Image.new("RGB", (sheet.width, sheet.height + 18), "white")
    drawn.paste(sheet, (0, 18))
    ImageDraw.Draw(drawn).text((3, 3), _plain(query), fill="black")
    return drawn


def _cell(hit: Hit) -> Image.Image:
    cell = Image.new("RGB", (SIDE, SIDE + CAPTION), "white")
    try:
        shown = DRAWN[hit.row["modality"]](hit.row)
    except InputError:
        shown = Image.new("RGB", (SIDE, SIDE), "lightgray")
    scale = SIDE / max(shown.size)
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    small = shown.resize(size, Image.Resampling.LANCZOS)
    cell.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    at = f" at {hit.row['start']:g} s" if "start" in hit.row else ""
    name = Path(hit.row["path"]).name
    lines = f"{hit.score:.2f}{at}\n{_plain(name if len(name) <= LETTERS else '...' + name[3 - LETTERS :])}"
    ImageDraw.Draw(cell).multiline_text((2, SIDE + 1), lines, fill="black", spacing=1)
    return cell


def _plain(text: str) -> str:
    """A text in the letters that Pillow's own font has."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _picture(row: Row) -> Image.Image:
    path = Path(row["path"])
    if kind_of_file(path) != "video":
        return read_image(path)
    found = moments(path, every=SHORTEST, window=1.0, sample_rate=16_000, needs_sound=False)
    return next((moment.frame for moment in found if moment.seconds >= row["start"] - SHORTEST), None) or _gone(path)


def _gone(path: Path) -> Image.Image:
    raise InputError(f"{path}: it is shorter than it was")


def _sound(row: Row) -> Image.Image:
    start = max(0.0, row["start"] - HEARD_WINDOW / 2) if "start" in row else None
    length = HEARD_WINDOW if "start" in row else None
    wave = read_audio(Path(row["path"]), sample_rate=None, start=start, duration=length, window=HEARD_WINDOW)
    return draw_sound(wave, View(width=640)).crop((0, 0, 640, 440))


def _text(row: Row) -> Image.Image:
    drawn = Image.new("RGB", (SIDE, SIDE), (245, 245, 235))
    words = "\n".join(textwrap.wrap(_plain(row["text"]), LETTERS - 2)[:12])
    ImageDraw.Draw(drawn).multiline_text((6, 6), words, fill="black")
    return drawn


def _array(row: Row) -> Image.Image:
    return picture_of(read_array(Path(row["path"]), row["path"]))


DRAWN: dict[str, Callable[[Row], Image.Image]] = {"image": _picture, "sound": _sound, "text": _text, "array": _array}
