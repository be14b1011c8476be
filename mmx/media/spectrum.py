"""Short-time spectra and mels as librosa and transformers make them: importing those takes seconds."""

from __future__ import annotations

import numpy as np

# a cosine window's coefficients (Harris 1978)
WINDOWS = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "blackman": (0.42, 0.5, 0.08), "boxcar": (1.0,)}
FRAMES = 512  # that are transformed at once: long sounds must not be in memory as often as their windows overlap
KNEE, MELS_THERE = 1000.0, 15.0  # Slaney's mel scale: linear below this many Hz, 27 mels a factor of 6.4 above


def window(name: str, length: int) -> np.ndarray:
    """One period of a window, a key of WINDOWS: (length,) float64."""
    angles = np.linspace(-np.pi, np.pi, length + 1)
    return sum(share * np.cos(k * angles) for k, share in enumerate(WINDOWS[name]))[:-1]


def stft(samples: np.ndarray, *, fft: int, hop: int, name: str) -> np.ndarray:
    """Samples (T,) float32 → complex64 (fft / 2 + 1, T // hop + 1). Frames are centred, with silence at both ends."""
    shape = window(name, fft)
    padded = np.pad(samples, fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop]
    spectrum = np.empty((fft // 2 + 1, len(frames)), np.complex64)
    for start in range(0, len(frames), FRAMES):
        spectrum[:, start : start + FRAMES] = np.fft.rfft(shape * frames[start : start + FRAMES], axis=1).T
    return spectrum


def _mels(hertz: float) -> float:
    return 3.0 * hertz / 200.0 if hertz < KNEE else MELS_THERE + np.log(hertz / KNEE) * (27.0 / np.log(6.4))


def mel_frequencies(count: int, top: float, low: float = 0.0) -> np.ndarray:
    """`count` frequencies in Hz from `low` to `top`, evenly spaced in mels."""
    mels = np.linspace(_mels(low), _mels(top), count)
    return np.where(mels < MELS_THERE, 200.0 * mels / 3.0, KNEE * np.exp(np.log(6.4) / 27.0 * (mels - MELS_THERE)))


def mel_filters(bins: int, count: int, rate: int, *, low: float, top: float) -> np.ndarray:
    """Spectra (..., bins) @ this (bins, count) are mels: triangles of one area (Slaney 1998), `low` to `top` Hz."""
    centres = mel_frequencies(count + 2, top, low)
    slopes = centres[None] - np.linspace(0, rate // 2, bins)[:, None]
    widths = np.diff(centres)
    triangles = np.maximum(0.0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return triangles * (2.0 / (centres[2:] - centres[:-2]))[None]
