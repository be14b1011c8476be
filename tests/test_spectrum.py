"""Spectra and mels, against librosa and transformers."""

from __future__ import annotations

import numpy as np
import pytest

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers is imported)
from mmx.media.audio import Waveform
from mmx.media.show import View, draw_sound
from mmx.media.spectrum import WINDOWS, mel_filters, mel_frequencies, stft


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize(("count", "fft", "hop"), [(5000, 256, 64), (300, 256, 100), (40_000, 33, 7), (256, 256, 300)])
def test_spectra_are_librosas(name: str, count: int, fft: int, hop: int) -> None:
    import librosa

    samples = np.random.default_rng(0).normal(size=count).astype(np.float32)
    wanted = librosa.stft(samples, n_fft=fft, hop_length=hop, window=name)
    got = stft(samples, fft=fft, hop=hop, name=name)
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top", [400.0, 1000.0, 8000.0, 22_050.0])
def test_mel_frequencies_are_librosas(top: float) -> None:
    import librosa

    np.testing.assert_allclose(mel_frequencies(160, top), librosa.mel_frequencies(n_mels=160, fmin=0.0, fmax=top))


@pytest.mark.parametrize(("low", "top", "bins"), [(80.0, 7600.0, 513), (0.0, 900.0, 257)])
def test_mel_filters_are_the_transformers_librarys(low: float, top: float, bins: int) -> None:
    from transformers.audio_utils import mel_filter_bank

    wanted = mel_filter_bank(bins, 20, low, top, 16_000, norm="slaney", mel_scale="slaney")
    assert np.array_equal(mel_filters(bins, 20, 16_000, low=low, top=top), wanted)


def test_a_sound_shorter_than_a_window_is_drawn() -> None:
    assert draw_sound(Waveform(np.ones(10, np.float32), 16_000), View(fft=1024)).width == View.width
