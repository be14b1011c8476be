"""Synthesise the sample sounds from nothing but noise and sines, so that they belong to nobody.

python assets/samples/make.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mmx.media.audio import Waveform, wav_bytes
from mmx.media.files import write_atomic

RATE = 16_000  # Hz
SECONDS = 5.0
LENGTH = int(RATE * SECONDS)
TIME = np.arange(LENGTH) / RATE


def shaped(noise: np.ndarray, low: float, high: float, slope: float = 0.0) -> np.ndarray:
    """Noise between two frequencies in Hz; slope in dB an octave."""
    spectrum = np.fft.rfft(noise)
    frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
    gain = (frequency > low) * (frequency < high) * np.maximum(frequency, 1.0) ** (slope / 6.02)
    return np.fft.irfft(spectrum * gain, len(noise))


def level(samples: np.ndarray, peak: float = 0.7) -> np.ndarray:
    return samples / (np.abs(samples).max() + 1e-9) * peak


def sea(rng: np.random.Generator) -> np.ndarray:
    """Waves: noise that swells and breaks every few seconds."""
    swell = np.maximum(0.12, np.sin(2 * np.pi * TIME / 4.6 - 0.9)) ** 1.6
    body = shaped(rng.standard_normal(LENGTH), 40, 6000, -5.0)
    hiss = shaped(rng.standard_normal(LENGTH), 900, 7800, -2.0)
    return level(level(body) * swell + 0.35 * level(hiss) * swell**2)


def rain(rng: np.random.Generator) -> np.ndarray:
    """Dense drops over a steady hiss."""
    drops = np.zeros(LENGTH)
    for at in rng.integers(0, LENGTH - 400, 4000):
        drops[at : at + 160] += rng.standard_normal(160) * np.exp(-np.arange(160) / 22) * rng.exponential(1.0)
    return level(
        0.8 * level(shaped(rng.standard_normal(LENGTH), 500, 7900, -1.0)) + 0.6 * level(shaped(drops, 800, 7900))
    )


def fire(rng: np.random.Generator) -> np.ndarray:
    """Crackles of all sizes over a low roar."""
    crackle = np.zeros(LENGTH)
    for at in rng.integers(0, LENGTH - 600, 150):
        width = int(rng.integers(20, 240))
        crackle[at : at + width] += (
            rng.standard_normal(width) * np.exp(-np.arange(width) / (width / 5)) * rng.pareto(1.6)
        )
    crackle = np.clip(crackle, -8, 8)
    return level(level(shaped(crackle, 700, 7900)) + 0.10 * level(shaped(rng.standard_normal(LENGTH), 40, 900, -4)))


def clock(rng: np.random.Generator) -> np.ndarray:
    """Two ticks a second, every other one a little lower."""
    out = 0.002 * rng.standard_normal(LENGTH)
    for number, at in enumerate(np.arange(0.15, SECONDS - 0.1, 0.5)):
        pitch, count = (2900 if number % 2 else 3500), 900
        t = np.arange(count) / RATE
        tick = np.sin(2 * np.pi * pitch * t) * np.exp(-t * 260) + 0.6 * rng.standard_normal(count) * np.exp(-t * 900)
        start = int(at * RATE)
        out[start : start + count] += tick
    return level(out)


def _voice(
    pitch: np.ndarray, formants: list[tuple[np.ndarray, float, float]], breath: float, rng: np.random.Generator
) -> np.ndarray:
    """A pulse train at `pitch` Hz through resonances (centre Hz, width Hz, gain)."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    out = np.zeros(len(pitch))
    noise = rng.standard_normal(len(pitch))
    for harmonic in range(1, 40):
        frequency = harmonic * pitch
        gain = sum(g / (1 + ((frequency - centre) / width) ** 2) for centre, width, g in formants)
        out += np.where(frequency < RATE / 2.1, gain * np.sin(harmonic * phase), 0.0)
    return out + breath * np.abs(out).mean() * noise


def bark(rng: np.random.Generator) -> np.ndarray:
    """Short, rough, falling calls with low formants."""
    out = 0.001 * rng.standard_normal(LENGTH)
    for at in (0.25, 0.75, 1.9, 2.4, 2.9, 4.1):
        count = int(0.19 * RATE)
        t = np.linspace(0, 1, count)
        pitch = 420 + 260 * np.sin(np.pi * t) ** 0.7 - 130 * t + 25 * rng.standard_normal(count).cumsum() / 60
        call = _voice(
            pitch, [(700 + 500 * np.sin(np.pi * t), 260, 1.0), (1700 + 300 * np.sin(np.pi * t), 400, 0.5)], 1.6, rng
        )
        start = int(at * RATE)
        out[start : start + count] += level(call * np.minimum(1, t * 14) * (1 - t) ** 1.2)
    return level(out)


def meow(rng: np.random.Generator) -> np.ndarray:
    """Long calls that rise and fall while the mouth opens and closes."""
    out = 0.001 * rng.standard_normal(LENGTH)
    for at, length in ((0.3, 1.0), (2.4, 1.2)):
        count = int(length * RATE)
        t = np.linspace(0, 1, count)
        pitch = 520 + 260 * np.sin(np.pi * t**0.7) + 8 * np.sin(2 * np.pi * 6 * t)
        opening = np.sin(np.pi * t**0.8)
        call = _voice(
            pitch,
            [(600 + 900 * opening, 220, 1.0), (1900 + 700 * opening, 320, 0.6), (3600 + 0 * t, 500, 0.2)],
            0.12,
            rng,
        )
        start = int(at * RATE)
        out[start : start + count] += level(call * np.sin(np.pi * t) ** 0.6)
    return level(out)


def siren(rng: np.random.Generator) -> np.ndarray:
    """A tone that wails up and down, with its odd harmonics."""
    pitch = 900 + 420 * np.sin(2 * np.pi * TIME / 2.4 - 1.3)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return level(
        np.sin(phase) + 0.4 * np.sin(3 * phase) + 0.15 * np.sin(5 * phase) + 0.02 * rng.standard_normal(LENGTH)
    )


def crickets(rng: np.random.Generator) -> np.ndarray:
    """Chirps of a few fast pulses at 4.6 kHz, again and again."""
    pulses = np.maximum(0, np.sin(2 * np.pi * 32 * TIME)) ** 2
    chirp = (np.mod(TIME, 0.42) < 0.19).astype(float)
    near = np.sin(2 * np.pi * 4600 * TIME) * pulses * chirp
    far = (
        0.3
        * np.sin(2 * np.pi * 4300 * TIME)
        * np.maximum(0, np.sin(2 * np.pi * 27 * TIME + 1))
        * (np.mod(TIME + 0.2, 0.37) < 0.2)
    )
    return level(near + far + 0.01 * shaped(rng.standard_normal(LENGTH), 2000, 7900))


SOUNDS = {
    "sea": sea,
    "rain": rain,
    "fire": fire,
    "clock": clock,
    "bark": bark,
    "meow": meow,
    "siren": siren,
    "crickets": crickets,
}


def main(folder: Path) -> None:
    """Write every sample; the same bytes each time."""
    for number, (name, make) in enumerate(SOUNDS.items()):
        samples = make(np.random.default_rng(number)).astype(np.float32)
        write_atomic(folder / f"{name}.wav", wav_bytes(Waveform(samples, RATE)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
