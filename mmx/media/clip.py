"""A video as the volume that it is: how many frames of what size, a few of them, and a slice through all."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from mmx.errors import InputError
from mmx.media.image import grid
from mmx.media.sound_files import Track, decoded, open_av
from mmx.media.video import is_cover, upright

WIDTH = 960  # pixels, of a drawing
FRAMES = 8  # that are shown
SIDE = 240  # pixels up to which a slice's line of a frame is kept
T = TypeVar("T")


@dataclass
class Thinned(Generic[T]):
    """Of items that come one after the other, evenly chosen ones: at least `most`, where there are as many, and fewer
    than twice as many, whatever their number is."""

    most: int
    every: int = 1
    count: int = 0
    kept: list[T] = field(default_factory=list)

    @property
    def wants(self) -> bool:
        """Whether the next item would be kept."""
        return self.count % self.every == 0

    def add(self, item: T | None) -> None:
        """The next item; None where it is not wanted."""
        if self.wants and item is not None:
            self.kept.append(item)
        self.count += 1
        if len(self.kept) >= 2 * self.most:
            self.kept, self.every = self.kept[::2], 2 * self.every


@dataclass(frozen=True)
class Clip:
    """shape: T, H, W, C, of the frames that can be decoded. fps: of their times; 0 where one frame says nothing.
    seconds: from the first frame's beginning to the last one's end. frames: FRAMES of them, small. lines (K, L, 3): the
    middle row of K frames, evenly chosen. damaged: places that could not be decoded."""

    shape: tuple[int, int, int, int]
    fps: float
    seconds: float
    frames: list[Image.Image]
    lines: np.ndarray
    damaged: int = 0

    def facts(self) -> list[str]:
        """What it is, in lines."""
        rate = f"{self.fps:.4g} frames a second  {self.seconds:.2f} s" if self.fps else "one moment"
        said = [f"{' x '.join(map(str, self.shape))} (T x H x W x C)  {rate}"]
        if self.damaged:
            said.append(f"damaged at {self.damaged} {'place' if self.damaged == 1 else 'places'}, left out")
        return said


def read_clip(data: bytes, name: str) -> Clip | None:
    """A video file's bytes → what is in it; None where it holds no moving pictures. All of it is decoded: headers lie
    about numbers and rates. Raises InputError for what can't be read."""
    with open_av(io.BytesIO(data), name) as container:
        stream = next((s for s in container.streams.video if not is_cover(s) and s.codec_context), None)
        if stream is None:
            return None
        stream.thread_type = "AUTO"
        track, times = Track(1), []
        frames, lines = Thinned[Image.Image](FRAMES), Thinned[np.ndarray](WIDTH)
        size, guessed = (0, 0), float(stream.average_rate or stream.guessed_rate or 0)
        for frame in decoded(container, stream, track):
            times.append(frame.time)
            image = upright(frame) if frames.wants or lines.wants else None
            size = size if image is None else image.size
            frames.add(image and _small(image))
            lines.add(None if image is None else _line(image))
    if not times:
        raise InputError(f"{name}: the video can't be decoded", hint="copy or download it again")
    fps = _rate(times) or guessed
    shape = (len(times), size[1], size[0], 3)
    chosen = np.linspace(0, len(frames.kept) - 1, min(FRAMES, len(frames.kept))).round().astype(int)
    shown = [frames.kept[k] for k in chosen]
    seconds = len(times) / fps if fps else 0.0
    return Clip(shape, fps, seconds, frames=shown, lines=np.stack(lines.kept), damaged=track.damaged)


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((WIDTH // 4, WIDTH // 4))
    return small


def _line(image: Image.Image) -> np.ndarray:
    """The row in the middle of a frame (SIDE, 3), stretched or shrunk to that length, uint8."""
    middle = image.height // 2
    row = image.crop((0, middle, image.width, middle + 1))
    return np.asarray(row.resize((SIDE, 1), Image.Resampling.BOX))[0]


def _rate(times: Iterable[float | None]) -> float:
    """Frames a second, by the times that are known; 0 where they say nothing."""
    known = [time for time in times if time is not None]
    span = max(known) - min(known) if known else 0.0
    return (len(known) - 1) / span if span > 0 else 0.0


def draw_clip(clip: Clip) -> Image.Image:
    """Frames above an x-t slice: the middle row of each frame as a column, its left end at the top, time from left to
    right as in a spectrogram."""
    columns = -(-len(clip.frames) // 2) if len(clip.frames) > 4 else len(clip.frames)
    top = grid([frame.resize(clip.frames[0].size) for frame in clip.frames], columns)
    top = top.resize((WIDTH, max(1, round(top.height * WIDTH / top.width))), Image.Resampling.LANCZOS)
    part = Image.fromarray(np.ascontiguousarray(clip.lines.transpose(1, 0, 2)))
    part = part.resize((WIDTH, SIDE), Image.Resampling.NEAREST if part.width < WIDTH else Image.Resampling.BOX)
    sheet = Image.new("RGB", (WIDTH, top.height + 6 + SIDE + 18), "white")
    sheet.paste(top, (0, 0))
    sheet.paste(part, (0, top.height + 6))
    text = f"{clip.facts()[0]}   below: row {clip.shape[1] // 2} over time"
    ImageDraw.Draw(sheet).text((4, sheet.height - 15), text, fill="black")
    return sheet


def stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """One picture above another of the same width."""
    both = Image.new("RGB", (upper.width, upper.height + lower.height), "white")
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height))
    return both
