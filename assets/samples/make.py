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
    for at in rng.integers(0, LENGTH - 400, 12_000):
        drops[at : at + 160] += rng.standard_normal(160) * np.exp(-np.arange(160) / 12) * rng.exponential(1.0)
    return level(
        0.6 * level(shaped(rng.standard_normal(LENGTH), 40, 7900, -1.0)) + 0.6 * level(shaped(drops, 800, 7900))
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


def typing(rng: np.random.Generator) -> np.ndarray:
    """Keys that go down and come up again, each a click and a small thump."""
    out = 0.01 * level(shaped(rng.standard_normal(LENGTH), 40, 7900, -4))
    t = np.arange(1200) / RATE
    at = 0.1
    while at < SECONDS - 0.3:
        for delay, strength in ((0.0, 1.0), (rng.uniform(0.05, 0.1), 0.5)):
            click = rng.standard_normal(len(t)) * np.exp(-t * 300)
            thump = 0.5 * np.sin(2 * np.pi * rng.uniform(180, 300) * t) * np.exp(-t * 80)
            ring = 0.3 * np.sin(2 * np.pi * rng.uniform(1500, 4500) * t) * np.exp(-t * 200)
            start = int((at + delay) * RATE)
            out[start : start + len(t)] += strength * rng.uniform(0.5, 1) * (click + thump + ring)
        at += rng.exponential(0.12) + 0.06
    return level(out)


def bees(rng: np.random.Generator) -> np.ndarray:
    """A sawtooth at the beat of small wings, which wavers, over a little rustle."""
    beat = 120 * (1 + 0.02 * np.sin(2 * np.pi * 0.7 * TIME)) * (1 + 0.05 * rng.standard_normal(LENGTH))
    saw = 2 * (np.cumsum(beat / RATE) % 1) - 1
    rustle = level(shaped(rng.standard_normal(LENGTH), 60, 7900, -2))
    return level(level(shaped(saw, 60, 5000, -2)) + 0.3 * rustle * (1 + 0.4 * np.sign(np.sin(2 * np.pi * 120 * TIME))))


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
    """Short, rough calls that rise and fall, with low formants and a little echo."""
    out = 0.001 * level(shaped(rng.standard_normal(LENGTH), 40, 7900, -6.0))
    count, tail = int(0.14 * RATE), int(0.5 * RATE)
    t, after = np.linspace(0, 1, count), np.arange(tail) / RATE
    for at in (0.25, 0.75, 1.9, 2.4, 2.9, 4.1):
        waver = rng.standard_normal(count).cumsum() / np.sqrt(np.arange(1, count + 1))
        pitch = 550 * (0.75 + 0.5 * np.sin(np.pi * t**0.6) - 0.25 * t) * (1 + 0.06 * waver)
        mouth = np.sin(np.pi * t)
        formants = [(450 * (0.8 + 0.4 * mouth), 350, 1.0), (990 + 300 * mouth, 500, 0.5), (3400 + 0 * t, 900, 0.25)]
        call = level(_voice(pitch, formants, 0.2, rng) * np.minimum(1, t * 20) * (1 - t) ** 0.8)
        start = int(at * RATE)
        out[start : start + count] += call
        echo = np.convolve(call, rng.standard_normal(tail) * np.exp(-after / 0.2))[:tail]
        room = out[start + 200 : start + 200 + tail]
        room += 0.1 * level(echo)[: len(room)]
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


VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}


def talk(rng: np.random.Generator, pitch: float, tract: float) -> np.ndarray:
    """Somebody who speaks and says nothing: syllables of a mean pitch in Hz; `tract` scales the formants (Peterson &
    Barney 1952).
    """
    loud, hiss = np.zeros(LENGTH), np.zeros(LENGTH)
    melody = np.full(LENGTH, pitch)
    marks, formants = [0], [VOWELS["a"]]
    at = 0.15
    while at < SECONDS - 0.6:
        began, stop = at, min(SECONDS - 0.3, at + rng.uniform(1.2, 2.0))
        while at < stop:
            first, last = int(at * RATE), min(int((at + rng.uniform(0.13, 0.24)) * RATE), LENGTH)
            marks += [int(0.7 * first + 0.3 * last), int(0.3 * first + 0.7 * last)]
            formants += [VOWELS[str(rng.choice(list(VOWELS)))]] * 2
            loud[first:last] = np.hanning(last - first) ** 0.4 * rng.uniform(0.6, 1)
            before = max(0, first - int(rng.uniform(0.03, 0.08) * RATE))
            hiss[before:first] = rng.uniform(0.1, 0.35) * np.hanning(first - before)
            at = last / RATE + rng.uniform(0.02, 0.06)
        phrase = slice(int(began * RATE), min(int(at * RATE), LENGTH))
        part = np.linspace(0, 1, phrase.stop - phrase.start)
        melody[phrase] *= 1.18 - 0.32 * part + 0.06 * np.sin(2 * np.pi * part * rng.uniform(2, 4))
        at += rng.uniform(0.25, 0.45)
    here = np.arange(LENGTH)
    centres = [np.interp(here, marks, column) * tract for column in np.array(formants, dtype=float).T]
    knots = here[::80]
    melody *= 1 + 0.008 * np.interp(here, knots, rng.standard_normal(len(knots)))
    phase = 2 * np.pi * np.cumsum(melody) / RATE
    voiced = np.zeros(LENGTH)
    for harmonic in range(1, 60):
        frequency = harmonic * melody
        gain = 0.01 + sum(
            strength / (1 + ((frequency - centre) / width) ** 2)
            for centre, width, strength in zip(
                [*centres, 3500 * tract], (80, 100, 140, 250), (1.0, 0.6, 0.3, 0.15), strict=True
            )
        )
        voiced += np.where(frequency < 7600, gain * harmonic**-0.85 * np.sin(harmonic * (phase + 0.3)), 0.0)
    air = 0.03 * level(shaped(rng.standard_normal(LENGTH), 300, 5000, -3)) * loud
    consonants = level(shaped(rng.standard_normal(LENGTH), 2000, 7500)) * hiss
    return level(level(voiced * loud) + consonants + air + 0.0005 * rng.standard_normal(LENGTH))


def low(rng: np.random.Generator) -> np.ndarray:
    """A low voice."""
    return talk(rng, 110.0, 1.0)


def high(rng: np.random.Generator) -> np.ndarray:
    """A high voice."""
    return talk(rng, 210.0, 1.17)


SOUNDS = {
    "sea": sea,
    "rain": rain,
    "fire": fire,
    "typing": typing,
    "bark": bark,
    "meow": meow,
    "siren": siren,
    "crickets": crickets,
    "bees": bees,
    "voices/low": low,
    "voices/high": high,
}


def main(folder: Path) -> None:
    """Write every sample; the same bytes each time."""
    for number, (name, make) in enumerate(SOUNDS.items()):
        samples = make(np.random.default_rng(number)).astype(np.float32)
        write_atomic(folder / f"{name}.wav", wav_bytes(Waveform(samples, RATE)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
