"""Media from known signals, and every bad input."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mmx.errors import InputError
from mmx.media.audio import Waveform, gained, loudest, mixed, read_audio, tile, wav_bytes
from tests.conftest import tone


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def peak_hertz(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "PCM_U8"),
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("MP3", None),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_any_format_and_rate_gives_the_same_tone(kind: str, subtype: str | None, rate: int) -> None:
    wave = read_audio(encoded(tone(1.0, 1000, rate), rate, kind, subtype), sample_rate=16_000)
    assert wave.samples.dtype == np.float32 and wave.samples.ndim == 1
    assert abs(wave.seconds - 1.0) < 0.1
    assert abs(peak_hertz(wave.samples, 16_000) - 1000) < 5
    assert 0.4 < np.abs(wave.samples[2000:-2000]).max() < 0.6


def test_channels_are_averaged() -> None:
    both = np.stack([tone(1, 500), np.zeros(16_000, np.float32)], axis=1)
    wave = read_audio(encoded(both, 16_000, subtype="FLOAT"), sample_rate=16_000)
    np.testing.assert_allclose(wave.samples, tone(1, 500) / 2, atol=1e-6)


def test_resampling_removes_what_would_alias() -> None:
    wave = read_audio(encoded(tone(1, 15_000, 48_000), 48_000, subtype="FLOAT"), sample_rate=16_000)
    assert np.abs(wave.samples[500:-500]).max() < 1e-3


def test_pyav_reads_what_soundfile_cannot(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0, 700)[None], format="fltp", layout="mono")
        frame.rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    wave = read_audio(path, sample_rate=16_000)
    assert abs(peak_hertz(wave.samples, 16_000) - 700) < 5


def bad_inputs() -> dict[str, bytes]:
    good = encoded(tone(1.0), 16_000)
    nan = tone(0.5)
    nan[100] = np.nan
    absurd_rate = bytearray(good)
    absurd_rate[24:28] = struct.pack("<I", 2**31 - 1)
    absurd_channels = bytearray(good)
    absurd_channels[22:24] = struct.pack("<H", 1024)
    return {
        "empty": b"",
        "text": b"not a sound at all" * 50,
        "header only": good[:44],
        "NaN": encoded(nan, 16_000, subtype="FLOAT"),
        "silence": encoded(np.zeros(16_000), 16_000),
        "stuck value": encoded(np.full(16_000, 0.25), 16_000),
        "absurd rate": bytes(absurd_rate),
        "absurd channels": bytes(absurd_channels),
        "no samples": encoded(np.zeros(0), 16_000),
    }


@pytest.mark.parametrize("name", list(bad_inputs()))
def test_bad_input_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as refused:
        read_audio(bad_inputs()[name], sample_rate=16_000, name="x.wav")
    assert refused.value.message.startswith("x.wav") and "\n" not in refused.value.message


def test_streamed_wav_of_unknown_size_is_read() -> None:
    data = bytearray(encoded(tone(1.0), 16_000, subtype="PCM_16"))
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    data[4:8] = struct.pack("<I", 0xFFFFFFFF)
    assert abs(read_audio(bytes(data), sample_rate=16_000).seconds - 1.0) < 0.01


def test_quiet_is_fine() -> None:
    assert read_audio(encoded(tone(1) * 1e-3, 16_000, subtype="FLOAT"), sample_rate=16_000).rms_db < -55


def test_the_loudest_stretch_is_taken_unless_another_is_asked_for() -> None:
    samples = 0.01 * np.random.default_rng(0).standard_normal(16_000 * 20).astype(np.float32)
    samples[16_000 * 12 : 16_000 * 14] += tone(2.0, 300)
    data = encoded(samples, 16_000, subtype="FLOAT")
    heard = read_audio(data, sample_rate=16_000, window=2.0)
    assert heard.seconds == 2.0 and heard.rms_db > -12
    chosen = read_audio(data, sample_rate=16_000, start=1.0, duration=3.0, window=2.0)
    np.testing.assert_allclose(chosen.samples, samples[16_000:64_000], atol=1e-6)
    with pytest.raises(InputError, match="past its end"):
        read_audio(data, sample_rate=16_000, start=30.0)


def test_loudest_against_a_naive_twin() -> None:
    samples = np.random.default_rng(1).standard_normal(5000).astype(np.float32) * np.linspace(0, 1, 5000) ** 2
    length, hop = 1000, 20
    energies = [np.sum(samples[s : s + length].astype(np.float64) ** 2) for s in range(0, 4001, hop)]
    best = int(np.argmax(energies)) * hop
    np.testing.assert_array_equal(loudest(samples, length), samples[best : best + length])


def test_tile_gain_and_mix() -> None:
    wave = Waveform(tone(0.5), 16_000)
    np.testing.assert_array_equal(tile(wave, 20_000).samples, np.tile(wave.samples, 3)[:20_000])
    assert abs(gained(wave, 6.0206).rms_db - wave.rms_db - 6.0206) < 1e-3
    quiet, loud = Waveform(tone(1, 300) * 0.01, 16_000), Waveform(tone(1, 2000), 16_000)
    spectrum = np.abs(np.fft.rfft(mixed([quiet, loud], [0.5, 0.5]).samples))
    assert abs(spectrum[300] / spectrum[2000] - 1) < 0.01  # equal weights, whatever the levels were


def test_wav_round_trip_through_memory() -> None:
    samples = read_audio(wav_bytes(Waveform(tone(0.3), 16_000)), sample_rate=16_000).samples
    np.testing.assert_allclose(samples, tone(0.3), atol=1 / 32_000)
    with pytest.raises(ValueError, match="finite"):
        wav_bytes(Waveform(np.array([np.nan], np.float32), 16_000))
