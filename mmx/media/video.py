"""Video files → moments: a frame, and the sound around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmx.errors import InputError
from mmx.media.audio import Waveform, read_audio


@dataclass(frozen=True)
class Moment:
    """Seconds into the video, the frame shown then, and the sound around it."""

    seconds: float
    frame: Image.Image
    sound: Waveform


def moments(path: Path, *, every: float, window: float, sample_rate: int) -> Iterator[Moment]:
    """A moment each `every` seconds, with `window` seconds of mono sound around it. Raises InputError."""
    import av

    sound = read_audio(path, sample_rate=sample_rate)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: no picture in this file", hint="mmx pairs wants videos")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            wanted = every / 2
            for frame in container.decode(stream):
                if frame.time is None or frame.time < wanted:
                    continue
                yield Moment(frame.time, frame.to_image(), _around(sound, frame.time, window))
                wanted += every * np.ceil((frame.time - wanted + 1e-6) / every)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: the video can't be decoded: {error}") from None


def _around(sound: Waveform, seconds: float, window: float) -> Waveform:
    """`window` seconds of sound around a time, moved inward at the ends."""
    count = int(window * sound.sample_rate)
    start = int((seconds - window / 2) * sound.sample_rate)
    start = max(0, min(start, len(sound.samples) - count))
    return Waveform(sound.samples[start : start + count], sound.sample_rate)
