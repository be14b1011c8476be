"""Sounds as other microphones, lines and files give them: what a bridge names must not depend on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mmx.media.audio import Waveform, resample

TELEPHONE = 8000  # Hz
RUMBLE = 12.0  # Hz: below hearing
QUIETER = 0.05


def over_a_telephone(wave: Waveform) -> Waveform:
    """With nothing above 4 kHz."""
    narrow = resample(wave.samples, wave.sample_rate, TELEPHONE)
    return replace(wave, samples=resample(narrow, TELEPHONE, wave.sample_rate)[: len(wave.samples)])


def resampled(wave: Waveform) -> Waveform:
    """To the rate of a CD and back."""
    there = resample(wave.samples, wave.sample_rate, 44_100)
    return replace(wave, samples=resample(there, 44_100, wave.sample_rate)[: len(wave.samples)])


def with_rumble(wave: Waveform) -> Waveform:
    """26 dB quieter, in a rumble that no ear hears and that is five times as strong as the sound."""
    quiet = wave.samples * QUIETER
    level = 5 * float(np.sqrt(np.mean(np.square(quiet)) * 2))
    time = np.arange(len(quiet)) / wave.sample_rate
    return replace(wave, samples=(quiet + level * np.cos(2 * np.pi * RUMBLE * time)).astype(np.float32))


CHANGES: dict[str, Callable[[Waveform], Waveform]] = {
    "resampled": resampled,
    "quiet, in a rumble": with_rumble,
    "telephone": over_a_telephone,
}
