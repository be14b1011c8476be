"""Any source's file → the medium that bridges from it take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmx.media.arrays import read_array
from mmx.media.audio import Waveform, part_of, read_audio, resample
from mmx.media.formats import HEARD_WINDOW, SAMPLE_RATE, VOICE_SPEECH, VOICE_WINDOW
from mmx.media.image import read_image, to_rgb
from mmx.media.samples import read_samples
from mmx.media.texts import text_of
from mmx.media.voice_activity import speech_part
from mmx.translate.base import Excerpt


def read_sound(source: Any, name: str | None, excerpt: Excerpt, window: float = HEARD_WINDOW) -> Waveform:
    """A path, bytes, a Waveform, or (samples, rate) → mono at 16 kHz. Raises InputError."""
    if isinstance(source, Waveform):
        whole = read_samples((source.samples, source.sample_rate), part_of(None), name or "input")
        return Waveform(resample(whole.samples, whole.sample_rate, SAMPLE_RATE), SAMPLE_RATE, source.notes)
    if isinstance(source, tuple):
        part = part_of(SAMPLE_RATE, excerpt.start, excerpt.duration, window)
        return read_samples(source, part, name or "input")
    return read_audio(source, sample_rate=SAMPLE_RATE, window=window, name=name, **vars(excerpt))


def _voice(source: Any, name: str | None, excerpt: Excerpt) -> Waveform:
    return speech_part(read_sound(source, name, excerpt, VOICE_WINDOW), limit=VOICE_SPEECH, name=name or "input")


def _image(source: Any, name: str | None, excerpt: Excerpt) -> Image.Image:
    if isinstance(source, Image.Image):
        return to_rgb(source)
    return read_image(source, name=name)


def _text(source: Any, name: str | None, excerpt: Excerpt) -> str:
    return text_of(source.read_bytes() if isinstance(source, Path) else source, name or "text")


def _array(source: Any, name: str | None, excerpt: Excerpt) -> np.ndarray:
    if isinstance(source, np.ndarray):
        return source
    return read_array(Path(source) if isinstance(source, str) else source, name or str(source)[:80])


READERS: dict[str, Callable[[Any, str | None, Excerpt], Any]] = {
    "sound": read_sound,
    "voice": _voice,
    "image": _image,
    "text": _text,
    "array": _array,
}
