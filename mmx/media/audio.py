"""Bytes ↔ mono waveforms. Any rate, channel count, format and damage that a sound file can have is dealt with here."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mmx.errors import InputError, SilenceError

MAX_BYTES = 1 << 30  # 1 GiB
MAX_RATE = 768_000  # Hz; the fastest converters in use
MIN_RATE = 1_000  # Hz; below, nothing that we model is left
MAX_CHANNELS = 64
MAX_SECONDS = 4 * 3600
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what streaming writers put where the size belongs


@dataclass(frozen=True)
class Waveform:
    """samples: float32 (T,), mono, about [-1, 1]; sample_rate in Hz."""

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    @property
    def rms_db(self) -> float:
        """Level in dB relative to full scale."""
        return float(20 * np.log10(np.sqrt(np.mean(np.square(self.samples, dtype=np.float64))) + 1e-12))


def read_audio(
    source: Path | str | bytes,
    *,
    sample_rate: int | None,
    start: float | None = None,
    duration: float | None = None,
    window: float | None = None,
    name: str | None = None,
) -> Waveform:
    """Decode a sound to float32 mono at `sample_rate`, or at its own rate where that is None.

    start, duration: the part to take, in seconds. window: where neither is given and the sound is longer than this many
    seconds, its loudest stretch of that length is taken.
    Raises InputError for what is no sound, empty, cut short, digital silence, non-finite or absurd.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "stdin")
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise InputError(f"{name}: the file is empty")
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: {len(data) >> 20} MiB are too many", hint="cut it below 1 GiB first")
    _refuse_truncated_wav(data, name)
    samples, rate = _decode(data, name)
    samples = _select(samples, rate, start, duration, name)
    _refuse_unusable(samples, name)
    if start is None and duration is None and window is not None:
        samples = loudest(samples, int(window * rate))
    if sample_rate is None:
        return Waveform(samples.astype(np.float32), rate)
    return Waveform(resample(samples, rate, sample_rate), sample_rate)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None


def _refuse_truncated_wav(data: bytes, name: str) -> None:
    """libsndfile reads a WAV that was cut in half without a word, so compare its header with what is there."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if kind == b"data":
            there = len(data) - at - 8
            if size not in UNKNOWN_SIZES and size > there:
                raise InputError(
                    f"{name}: cut short: its header promises {size} bytes of sound, {there} are there",
                    hint="copy or download it again",
                )
            return
        at += 8 + size + size % 2


def _decode(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """soundfile first; PyAV for what it can't open (m4a, mp4, webm, broken headers)."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file.samplerate, file.channels, file.frames, name)
            samples = file.read(dtype="float32", always_2d=True)
            if len(samples) < 0.98 * file.frames:
                raise InputError(
                    f"{name}: cut short: {len(samples)} of {file.frames} samples are there",
                    hint="copy or download it again",
                )
            return samples.mean(axis=1), file.samplerate
    except soundfile.LibsndfileError:
        return _decode_av(data, name)


def _check_header(rate: int, channels: int, frames: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(
            f"{name}: a sample rate of {rate} Hz can't be right", hint=f"{MIN_RATE} to {MAX_RATE} Hz are read"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels are too many", hint=f"at most {MAX_CHANNELS} are read")
    if frames > MAX_SECONDS * rate:
        raise InputError(f"{name}: {frames / rate / 3600:.1f} hours are too long", hint="cut it below four hours first")


def _decode_av(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Decode with the FFmpeg that PyAV's wheel carries."""
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            stream = next((s for s in container.streams if s.type == "audio"), None)
            if stream is None:
                raise InputError(f"{name}: there is no sound in it", hint="is it a picture, or a video without sound?")
            rate = stream.codec_context.sample_rate
            _check_header(rate, stream.codec_context.channels, 0, name)
            resampler = av.AudioResampler(format="fltp", rate=rate)
            pieces, count = [], 0
            for frame in container.decode(stream):
                for piece in resampler.resample(frame):
                    array = piece.to_ndarray()
                    pieces.append(array.mean(axis=0))
                    count += array.shape[1]
                if count > MAX_SECONDS * rate:
                    raise InputError(f"{name}: longer than {MAX_SECONDS // 3600} hours", hint="cut it first")
    except av.FFmpegError as error:
        raise InputError(
            f"{name}: not a sound I can read", hint=f"WAV, FLAC, OGG, MP3, M4A, MP4 and WebM work ({error.strerror})"
        ) from None
    if not pieces:
        raise InputError(f"{name}: there is no sound in it", hint="copy or download it again")
    return np.concatenate(pieces).astype(np.float32), rate


def _select(samples: np.ndarray, rate: int, start: float | None, duration: float | None, name: str) -> np.ndarray:
    if len(samples) == 0:
        raise InputError(f"{name}: it holds no samples")
    first = int((start or 0) * rate)
    if first >= len(samples):
        raise InputError(f"{name}: --start {start:g} is past its end at {len(samples) / rate:.2f} s")
    return samples[first : first + max(1, int(duration * rate))] if duration is not None else samples[first:]


def _refuse_unusable(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        raise InputError(
            f"{name}: it holds samples that are not numbers (NaN or infinity)", hint="export it again as 16-bit WAV"
        )
    if np.ptp(samples) == 0:
        raise SilenceError(
            f"{name}: it is digital silence", hint="every sample has the same value; is it the right file or channel?"
        )


def loudest(samples: np.ndarray, length: int) -> np.ndarray:
    """The stretch of `length` samples with the most energy."""
    if len(samples) <= length:
        return samples
    hop = max(1, length // 50)
    energy = np.concatenate(([0.0], np.cumsum(np.square(samples, dtype=np.float64))))
    starts = np.arange(0, len(samples) - length + 1, hop)
    best = starts[np.argmax(energy[starts + length] - energy[starts])]
    return samples[best : best + length]


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 (T,) at `rate` → float32 (T * wanted / rate,) at `wanted`, band-limited."""
    if rate == wanted:
        return np.ascontiguousarray(samples, dtype=np.float32)
    import soxr

    return soxr.resample(samples.astype(np.float32), rate, wanted).astype(np.float32)


def tile(waveform: Waveform, length: int) -> Waveform:
    """Repeat a sound until it has at least `length` samples; longer ones stay as they are."""
    count = -(-length // max(1, len(waveform.samples)))
    if count <= 1:
        return waveform
    return Waveform(np.tile(waveform.samples, count)[:length], waveform.sample_rate)


def gained(waveform: Waveform, decibels: float) -> Waveform:
    """Louder or quieter by `decibels`. Float samples may pass full scale; nothing is clipped."""
    return Waveform((waveform.samples * 10 ** (decibels / 20)).astype(np.float32), waveform.sample_rate)


def mixed(waveforms: list[Waveform], weights: list[float]) -> Waveform:
    """Sounds of one rate, each brought to equal level, tiled to the longest and added with `weights`."""
    length = max(len(w.samples) for w in waveforms)
    total = np.zeros(length, dtype=np.float32)
    for waveform, weight in zip(waveforms, weights, strict=True):
        samples = tile(waveform, length).samples[:length]
        total += (
            np.float32(weight) * samples / np.float32(np.sqrt(np.mean(np.square(samples, dtype=np.float64))) + 1e-9)
        )
    return Waveform(total * np.float32(0.1 / max(sum(weights), 1e-9)), waveforms[0].sample_rate)


def wav_bytes(waveform: Waveform) -> bytes:
    """Encode as 16-bit WAV. A buffer in memory first: soundfile writes garbage to pipes."""
    import soundfile

    if not np.isfinite(waveform.samples).all():  # soundfile writes NaN as -1.0 without a word
        raise ValueError("samples must be finite")
    buffer: BinaryIO = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform.samples, -1, 1), waveform.sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()  # type: ignore[attr-defined]
