"""Short-time spectra for drawings, as librosa makes them: importing that, with numba and scipy, takes seconds."""

from __future__ import annotations

import numpy as np

# a cosine window's coefficients (Harris 1978)
WINDOWS = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "blackman": (0.42, 0.5, 0.08), "boxcar": (1.0,)}
FRAMES = 512  # that are transformed at once: long sounds must not be in memory as often as their windows overlap
# Slaney's mel scale: linear below 1 kHz, 27 mels for each factor of 6.4 above
MEL, KNEE, STEP = 200 / 3, 1000.0, np.log(6.4) / 27.0


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


def mel_frequencies(count: int, top: float) -> np.ndarray:
    """`count` frequencies in Hz from 0 to `top`, evenly spaced in mels."""
    last = top / MEL if top < KNEE else KNEE / MEL + np.log(top / KNEE) / STEP
    mels = np.linspace(0.0, last, count)
    return np.where(mels < KNEE / MEL, MEL * mels, KNEE * np.exp(STEP * (mels - KNEE / MEL)))
