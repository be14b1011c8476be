"""Bytes ↔ mono waveforms. Any rate, channel count, format and damage that a sound file can have is dealt with here."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mmx.errors import DamagedError, InputError, UsageError
from mmx.media.findings import Note
from mmx.media.formats import MAX_BYTES, NARROW
from mmx.media.sound_files import av_track, soundfile_track
from mmx.media.sound_part import Loudest, Part, Take


@dataclass(frozen=True)
class Waveform:
    """samples: float32 (T,), mono, about [-1, 1]; sample_rate in Hz."""

    samples: np.ndarray
    sample_rate: int
    notes: tuple[Note, ...] = ()  # what the user should know of the file that it came from

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
    strict: bool = False,
) -> Waveform:
    """Decode a sound to float32 mono at `sample_rate`, or at its own rate where that is None.

    start, duration: the part to take, in seconds. window: where no duration is given and what follows `start` is longer
    than this many seconds, its loudest stretch of that length is taken. What is there is heard, and the result's
    `notes` say what is missing; with `strict` that is an error. Raises InputError for what is no sound, empty, digital
    silence, non-finite or absurd, UsageError for times that are none.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "stdin")
    part = part_of(sample_rate, start, duration, window)
    with opened(source, name) as file:
        take = with_either_ear(lambda channel: _heard(file, part, name, channel))
    take.check(name)
    track, lost = take.track, take.track.losses() if take.ended else ()
    if strict and lost:
        raise DamagedError(f"{name}: {lost[0]}", hint="copy or download it again")
    if sample_rate is not None and track.rate < NARROW * sample_rate:
        said = f"sampled at {track.rate} Hz as on a telephone: nothing above {track.rate // 2} Hz is in it"
        take.notes += (Note("narrow", said),)
    return Waveform(take.samples(), sample_rate or track.rate, lost + take.notes)


def part_of(
    sample_rate: int | None, start: float | None = None, duration: float | None = None, window: float | None = None
) -> Part:
    """The part that is meant by what `read_audio` is given. Raises UsageError for times that are none."""
    for option, value in (("--start", start), ("--duration", duration)):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{option} {value:g}: that is no time", hint="seconds, such as 2.5")
    return Part(start or 0.0, duration, window if duration is None else None, sample_rate)


def read_timed(path: Path, *, sample_rate: int, name: str | None = None) -> tuple[Waveform, float]:
    """The sound of a video of any size in mono, with silence where its clock jumps, and the time on that clock at which
    it starts.

    Raises InputError as `read_audio` does.
    """
    place, name = str(path), name or str(path)
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    part = Part(sample_rate=sample_rate)
    take = with_either_ear(lambda channel: Take(part, av_track(place, name, in_time=True), channel).run(name))
    take.check(name)
    return Waveform(take.samples(), sample_rate, take.track.losses() + take.notes), take.track.start


def with_either_ear(hear: Callable[[int | None], Take]) -> Take:
    """The mean of all channels, or one of them where they cancel each other."""
    take = hear(None)
    if (channel := take.opposed) is not None:
        take = hear(channel)
        said = f"its channels are of opposite phase: channel {channel + 1} alone is heard"
        take.notes += (Note("opposed", said),)
    return take


@contextmanager
def opened(source: Path | str | bytes, name: str) -> Iterator[BinaryIO]:
    """The bytes of a sound or a picture as a file in which one can seek.

    Raises InputError for none, too many, or no right to them.
    """
    try:
        path = None if isinstance(source, bytes) else Path(source)
        size = len(source) if path is None else path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{name}: {size >> 20} MiB are too many", hint="cut it below 1 GiB first")
        file = io.BytesIO(source) if path is None else path.open("rb")
        if path is not None and not path.is_file():  # a pipe, such as <(...)
            with file:
                file = io.BytesIO(file.read(MAX_BYTES))
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    with file:
        if not file.read(1):
            raise InputError(f"{name}: the file is empty")
        file.seek(0)
        yield file


def _heard(file: BinaryIO, part: Part, name: str, channel: int | None) -> Take:
    """A part of a sound, by the reader that gives the most of it. channel: the one to take; None averages them."""
    found: Take | None = None
    for reader in (soundfile_track, av_track):
        try:
            track = reader(file, name)
            take = None if track is None else Take(part, track, channel).run(name)
        except Exception as error:  # damaged files make decoders raise anything
            if found is not None:
                return found
            if isinstance(error, InputError):
                raise
            if reader is av_track:
                raise InputError(f"{name}: not a sound I can read", hint=f"{type(error).__name__}: {error}") from None
            continue
        if take is not None and (found is None or take.track.count > found.track.count):
            take.track.promised = max(take.track.promised, found.track.promised if found else 0.0)
            found = take
        if found is not None and (found.track.whole or not found.ended):
            break
    assert found is not None, "the last reader gives a track or raises"
    return found


def loudest(samples: np.ndarray, length: int) -> np.ndarray:
    """The stretch of `length` samples with the most energy."""
    found = Loudest(length)
    found.add(samples)
    return found.samples()


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
