"""Video files → moments: a frame, and the sound around it.

Both are placed by their presentation times on the file's clock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmx.errors import InputError
from mmx.media.audio import Waveform, read_timed
from mmx.media.files import seekable
from mmx.media.sound_files import Track, decoded, open_av

SLACK = 0.25  # seconds by which a frame may lie outside the sound track and still be heard with its end
TURNS = {
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}  # what sets a frame upright, by the signs of its display matrix: x' = a x + c y, y' = b x + d y as (a, b, c, d)


@dataclass(frozen=True)
class Moment:
    """Seconds after the first frame, the frame shown then, upright, and the sound around it; None without a sound."""

    seconds: float
    frame: Image.Image
    sound: Waveform | None


def moments(
    path: Path, *, every: float, window: float, sample_rate: int, needs_sound: bool = True, name: str = ""
) -> Iterator[Moment]:
    """A moment each `every` seconds, with `window` seconds of mono sound around it. A video without a sound that can be
    heard is an error, or, unless it `needs_sound`, one of pictures alone. name: what errors call it, if that is not
    its path. Raises InputError."""
    name = name or str(path)
    with seekable(path) as place:
        heard = _timed(place, name, sample_rate, needs_sound)
        with open_av(str(place), name) as container:
            yield from _moments(container, heard, every, window, name=name)


def _moments(
    container: Any, heard: tuple[Waveform | None, float], every: float, window: float, *, name: str
) -> Iterator[Moment]:
    """Those of an open video; heard: its sound, and when it begins."""
    sound, begins = heard
    stream = next((s for s in container.streams.video if not is_cover(s)), None)
    if stream is None or stream.codec_context is None:
        raise InputError(f"{name}: no picture in this file", hint="mmx pairs wants videos")
    stream.thread_type = "AUTO"
    first, wanted = None, every / 2
    for frame in decoded(container, stream, Track(1)):
        if frame.time is None:
            continue
        first = frame.time if first is None else first
        seconds = frame.time - first
        if seconds < wanted:
            continue
        around = None if sound is None else _around(sound, frame.time - begins, window)
        yield Moment(seconds, upright(frame), around)
        wanted += every * np.ceil((seconds - wanted + 1e-6) / every)
    if first is None:
        raise InputError(f"{name}: the video can't be decoded", hint="copy or download it again")


def _timed(path: Path, name: str, sample_rate: int, needed: bool) -> tuple[Waveform | None, float]:
    """As `read_timed`; no sound at all where none is needed and none can be heard."""
    try:
        return read_timed(path, sample_rate=sample_rate, name=name)
    except InputError:
        if needed:
            raise
        return None, 0.0


def is_cover(stream: Any) -> bool:
    """Whether a stream is the picture of a record, not a video."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def upright(frame: Any) -> Image.Image:
    """A decoded frame as players show it, whichever way the telephone was held."""
    image, matrix = frame.to_image(), frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    turn = TURNS.get(tuple(int(np.sign(round(value / 65536))) for value in (a, b, c, d)))
    return image if turn is None else image.transpose(turn)


def _around(sound: Waveform, seconds: float, window: float) -> Waveform:
    """`window` seconds of sound around a time after its start, moved inward at the ends; silence where there is no
    sound.
    """
    count = int(window * sound.sample_rate)
    if not -SLACK <= seconds <= sound.seconds + SLACK:
        return Waveform(np.zeros(count, np.float32), sound.sample_rate)
    start = int((seconds - window / 2) * sound.sample_rate)
    start = max(0, min(start, len(sound.samples) - count))
    return Waveform(sound.samples[start : start + count], sound.sample_rate)
