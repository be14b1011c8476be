"""The part of a sound that is asked for, taken while it is read: no more of it is held than the result needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmx.errors import InputError, SilenceError
from mmx.media.findings import Note
from mmx.media.formats import MAX_SECONDS
from mmx.media.sound_files import Track

OPPOSED = 0.02  # of the energy that unrelated channels leave in their mean; less is left by channels of opposite phase


@dataclass(frozen=True)
class Part:
    """What to take: seconds from the start, how many, of those the loudest stretch, and the rate of the
    result in Hz.
    """

    start: float = 0.0
    duration: float | None = None
    window: float | None = None
    sample_rate: int | None = None


class Loudest:
    """The stretch of `length` samples with the most energy in a stream of blocks, looked for each 50th of its
    length.
    """

    def __init__(self, length: int) -> None:
        self.length, self.hop = length, max(1, length // 50)
        self._held = np.zeros(0, np.float32)  # from the next start on
        self._energy = np.zeros(1)  # of all samples before each held one, and at the end
        self._start, self._most = 0, -1.0
        self._best: np.ndarray | None = None

    def add(self, block: np.ndarray) -> None:
        """Mono samples (T,)."""
        sums = np.cumsum(np.concatenate((self._energy[-1:], np.square(block, dtype=np.float64))))
        self._energy = np.concatenate((self._energy, sums[1:]))
        self._held = np.concatenate((self._held, block))
        starts = np.arange(0, len(self._held) - self.length + 1, self.hop)
        if not len(starts):
            return
        energies = self._energy[starts + self.length] - self._energy[starts]
        best = int(np.argmax(energies))
        if self._best is None or energies[best] > self._most:
            self._most = energies[best]
            self._best = self._held[starts[best] : starts[best] + self.length].copy()
        done = int(starts[-1]) + self.hop
        self._held, self._energy = self._held[done:].copy(), self._energy[done:].copy()

    def samples(self) -> np.ndarray:
        """The loudest stretch, or all where there is no more than that."""
        return self._held if self._best is None else self._best


class Resampled:
    """All of a stream at another rate, band-limited."""

    def __init__(self, rate: int, wanted: int | None) -> None:
        self._stream, self._pieces = None, []
        if wanted not in (None, rate):
            import soxr

            self._stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32")

    def add(self, block: np.ndarray) -> None:
        """Mono samples (T,)."""
        self._pieces.append(block if self._stream is None else self._stream.resample_chunk(block))

    def samples(self) -> np.ndarray:
        """Everything that was added, resampled."""
        if self._stream is not None:
            self._pieces.append(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.float32)


class Take:
    """A part of a track, in mono: the mean of its channels, or one of them."""

    def __init__(self, part: Part, track: Track, channel: int | None) -> None:
        self.part, self.track, self.channel = part, track, channel
        self.ended = True  # whether the track was read to its end
        self.notes: tuple[Note, ...] = ()
        self._low, self._high, self._finite = np.inf, -np.inf, True
        self._mean_energy, self._energies = 0.0, np.zeros(1)
        length = None if part.window is None else int(part.window * track.rate)
        self._sink = Resampled(track.rate, part.sample_rate) if length is None else Loudest(length)

    def run(self, name: str) -> Take:
        """Read the track. Raises InputError where it is absurdly long."""
        first = int(self.part.start * self.track.rate)
        last = None if self.part.duration is None else first + max(1, int(self.part.duration * self.track.rate))
        at = 0
        for block in self.track.blocks:
            if at + len(block) > MAX_SECONDS * self.track.rate:
                raise InputError(f"{name}: longer than {MAX_SECONDS // 3600} hours", hint="cut it first")
            self._add(block[max(0, first - at) : None if last is None else max(0, last - at)])
            at += len(block)
            if last is not None and at >= last:
                self.ended = False
                break
        self.track.blocks.close()
        return self

    def _add(self, block: np.ndarray) -> None:
        if not len(block):
            return
        mono = block.mean(axis=1) if self.channel is None else np.ascontiguousarray(block[:, self.channel])
        self._low, self._high = min(self._low, float(mono.min())), max(self._high, float(mono.max()))
        self._finite = self._finite and bool(np.isfinite(mono).all())
        if block.shape[1] > 1:
            self._mean_energy += float(np.square(mono, dtype=np.float64).sum())
            self._energies = self._energies + np.square(block, dtype=np.float64).sum(axis=0)
        self._sink.add(mono)

    @property
    def opposed(self) -> int | None:
        """The first channel that is not much weaker than the others, where they cancel in their mean; else None."""
        unrelated = self._energies.sum() / len(self._energies) ** 2
        if self._mean_energy >= OPPOSED * unrelated:
            return None
        return int((self._energies > self._energies.max() / 2).argmax())

    def check(self, name: str) -> None:
        """Raise InputError for what can't be heard."""
        if not self.track.count:
            raise InputError(f"{name}: it holds no samples", hint="copy or download it again")
        if not self._finite:
            raise InputError(
                f"{name}: it holds samples that are not numbers (NaN or infinity)", hint="export it again as 16-bit WAV"
            )
        if self._low > self._high:
            raise InputError(f"{name}: --start {self.part.start:g} is past its end at {self.track.seconds:.2f} s")
        if self._low == self._high:
            raise SilenceError(
                f"{name}: it is digital silence",
                hint="every sample has the same value; is it the right file or channel?",
            )

    def samples(self) -> np.ndarray:
        """float32 (T,) at the rate asked for."""
        found = self._sink.samples()
        if self.part.window is not None:
            last = Resampled(self.track.rate, self.part.sample_rate)
            last.add(found)
            found = last.samples()
        return found
