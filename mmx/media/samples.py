"""Samples that a program holds → mono waveforms, by the rules that files are heard by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmx.errors import InputError
from mmx.media.audio import Waveform, with_either_ear
from mmx.media.sound_files import BLOCK, Track, check_header
from mmx.media.sound_part import Part, Take

# integers of sounds → what is silence, and how far from it full scale is
WHOLE = {"int16": (0, 1 << 15), "int32": (0, 1 << 31), "uint8": (1 << 7, 1 << 7)}
SHAPES = "(T,) for mono, (T, C) or (C, T) for C channels"


def read_samples(source: tuple, part: Part, name: str) -> Waveform:
    """(samples, rate in Hz), the samples as an array or a tensor → a part of them in mono, float32.

    Integers are taken as WAV files hold them. Of two axes the longer one is time. Raises InputError for
    what can't be heard: no samples, silence, numbers that are none, another shape, an absurd rate.
    """
    if len(source) != 2:
        raise InputError(f"{name}: {len(source)} things in the place of (samples, rate)")
    channels, hertz = _by_time(source[0], name), _hertz(source[1], name)
    check_header(hertz, channels.shape[1], name)
    take = with_either_ear(lambda channel: Take(part, _track(channels, hertz), channel).run(name))
    take.check(name)
    return Waveform(take.samples(), part.sample_rate or hertz, take.notes)


def _by_time(samples: Any, name: str) -> np.ndarray:
    """(T, C), integers or floats."""
    try:
        found = np.asarray(samples.detach().cpu() if hasattr(samples, "detach") else samples)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: these are no samples", hint=f"give numbers: {SHAPES}") from None
    if not found.size:
        raise InputError(f"{name}: it holds no samples")
    if found.dtype.kind != "f" and found.dtype.name not in WHOLE:
        hint = f"floats in [-1, 1], or {', '.join(WHOLE)}, whose full scale is known"
        raise InputError(f"{name}: samples of type {found.dtype}", hint=hint)
    if found.ndim not in (1, 2):
        raise InputError(f"{name}: samples of shape {found.shape}", hint=SHAPES)
    if found.ndim == 1:
        return found[:, None]
    return found if found.shape[0] >= found.shape[1] else found.T


def _hertz(rate: Any, name: str) -> int:
    try:
        return int(rate)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}: {rate!r} is no sample rate", hint="in Hz, such as 16000") from None


def _track(channels: np.ndarray, rate: int) -> Track:
    track = Track(rate)

    def blocks() -> Iterator[np.ndarray]:
        for at in range(0, len(channels), BLOCK):
            block = _floats(channels[at : at + BLOCK])
            track.count += len(block)
            yield block

    track.blocks = blocks()
    return track


def _floats(block: np.ndarray) -> np.ndarray:
    """(T, C) → float32 in about [-1, 1]."""
    if block.dtype.kind == "f":
        return block.astype(np.float32)
    silence, full = WHOLE[block.dtype.name]
    return ((block.astype(np.float64) - silence) / full).astype(np.float32)
