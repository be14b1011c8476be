"""Sound files → blocks of samples. libsndfile reads first, FFmpeg what it can't open or does not read to the end.

Lengths in headers are hints here: samples are counted, and what a header promised is kept beside what came.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from mmx.errors import InputError
from mmx.media.findings import Note
from mmx.media.formats import DEMUXERS, MAX_CHANNELS, MAX_RATE, MIN_RATE, SOUNDS_SAID
from mmx.media.sound_headers import MP3_PACKET, missing_share, mp3_says, ogg_ends

BLOCK = 1 << 17  # frames that are decoded at a time
SLACK = 0.1  # seconds that a header may promise too much: paddings of encoders, sizes that count a header
JUMP = 0.04  # seconds: less than that is the clock's own roundness
DELAY = 4096  # samples, that encoders put before a sound and behind it, and durations may count
HEADERS = ("mp4", "flac", "ape", "tta")  # FFmpeg's formats whose duration is written down, not estimated


@dataclass
class Track:
    """A sound that is being read. `blocks` gives float32 (T, C); what follows is known when they are at their end."""

    rate: int
    start: float = 0.0  # seconds on the file's clock
    blocks: Generator[np.ndarray] = field(default_factory=lambda: (block for block in ()))
    promised: float = 0.0  # seconds by the header; 0 where it says nothing
    count: int = 0  # frames that came
    damaged: int = 0  # packets, or places, that could not be decoded
    unended: bool = False  # the mark that ends such files is not there
    more: bool = False  # there is more than this reader gives

    @property
    def seconds(self) -> float:
        return self.count / self.rate

    @property
    def short(self) -> bool:
        """Whether less came than was promised."""
        return self.promised > self.seconds + SLACK

    @property
    def whole(self) -> bool:
        """Whether another reader would give no more."""
        return self.count > 0 and not (self.short or self.damaged or self.more)

    def losses(self) -> tuple[Note, ...]:
        """What is missing, for the user."""
        if self.short:
            promised, there = f"{self.promised:.2f} s", f"{self.seconds:.2f} s"
            said = f"cut short or damaged: of the {promised} that its header promises {there} are there"
            return (Note("cut", said),)
        if self.damaged:
            places = "1 place, which is" if self.damaged == 1 else f"{self.damaged} places, which are"
            return (Note("damaged", f"damaged at {places} left out"),)
        said = "it may be cut short: it ends without the mark that ends such files"
        return (Note("cut", said),) if self.unended else ()


def soundfile_track(file: BinaryIO, name: str) -> Track | None:
    """Read with libsndfile. None where it can't open the file. Raises InputError for absurd headers."""
    import soundfile

    class Forward(soundfile.SoundFile):
        """Read from the start to the end: soundfile would seek after each block, which damages MP3 and fails in cut
        FLAC.
        """

        def seekable(self) -> bool:
            return False

    file.seek(0)
    try:
        opened = Forward(file)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        return None
    check_header(opened.samplerate, opened.channels, name)
    track = Track(opened.samplerate, promised=_promised(file, opened))

    def blocks() -> Iterator[np.ndarray]:
        with opened:
            try:
                while len(block := opened.read(BLOCK, dtype="float32", always_2d=True)):
                    track.count += len(block)
                    yield block
            except soundfile.SoundFileError:
                track.damaged += 1
            kind = opened.format
        if kind == "MP3":
            there, said = _mp3_samples(file), mp3_says(file)
            track.more = there > track.count + 3 * MP3_PACKET
            if said > there + 3 * MP3_PACKET:
                track.promised = track.seconds + (said - there) / track.rate
        elif kind == "OGG":
            track.unended = not ogg_ends(file)

    track.blocks = blocks()
    return track


def av_track(file: BinaryIO | str, name: str, *, in_time: bool = False) -> Track:
    """Read with the FFmpeg that PyAV's wheel carries. in_time: silence is put where its clock jumps forward.

    Raises InputError where it finds no sound.
    """
    container = open_av(file, name)
    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        container.close()
        raise InputError(f"{name}: there is no sound in it", hint="is it a picture, or a video without sound?")
    frames = decoded(container, stream, track := Track(0))
    first = next(frames, None)
    if first is None:
        container.close()
        raise InputError(f"{name}: there is no sound in it", hint="copy or download it again")
    check_header(first.sample_rate, first.layout.nb_channels, name)
    track.rate, track.start = first.sample_rate, first.time or 0.0
    promised, interleaved = _promised_av(container, stream, track.rate), Interleaved(first)

    def pieces() -> Iterator[np.ndarray]:
        at = 0
        for frame in chain((first,), frames):
            late = 0 if not in_time or frame.time is None else round((frame.time - track.start) * track.rate) - at
            for piece in interleaved(frame):
                if abs(late) > JUMP * track.rate:
                    for k in range(0, late, BLOCK):
                        yield np.zeros((min(BLOCK, late - k), piece.shape[1]), np.float32)
                    at += max(0, late)
                    piece = piece[max(0, -late) :]
                late = 0
                at += len(piece)
                yield piece
        yield from interleaved.rest()

    def blocks() -> Iterator[np.ndarray]:
        with container:
            for block in _joined(pieces()):
                track.count += len(block)
                yield block
        missing = 0.0 if isinstance(file, str) else missing_share(file)
        track.promised = track.seconds / (1 - missing) if 0 < missing < 1 else promised

    track.blocks = blocks()
    return track


class Interleaved:
    """FFmpeg's frames → float32 (T, C) of the first one's rate and channels, though they change on the way."""

    def __init__(self, first: Any) -> None:
        self.rate, self.layout = first.sample_rate, first.layout
        self._kind, self._resampler = None, None

    def __call__(self, frame: Any) -> list[np.ndarray]:
        """A frame → its samples, and what was held back where its kind is a new one."""
        import av

        kind, rest = (frame.format.name, frame.layout.name, frame.sample_rate), []
        if kind != self._kind:
            rest = self.rest()
            self._kind = kind
            # not planar: PyAV reads past the end of eight planes
            self._resampler = av.AudioResampler(format="flt", layout=self.layout, rate=self.rate)
        frame.pts = None  # a clock that jumps back would be an error of the filter
        return rest + self._arrays(self._resampler.resample(frame))

    def rest(self) -> list[np.ndarray]:
        """What is held back at the end."""
        return [] if self._resampler is None else self._arrays(self._resampler.resample(None))

    def _arrays(self, frames: list[Any]) -> list[np.ndarray]:
        return [frame.to_ndarray().reshape(-1, self.layout.nb_channels) for frame in frames]


def open_av(file: BinaryIO | str, name: str) -> Any:
    """A file for FFmpeg, of the formats that are no playlists. Raises InputError."""
    import av

    if not isinstance(file, str):
        file.seek(0)
    try:
        return av.open(file, metadata_errors="replace", options={"format_whitelist": ",".join(DEMUXERS)})
    except av.FFmpegError as error:
        raise _unreadable(name, str(error.strerror)) from None


def decoded(container: Any, stream: Any, track: Track) -> Iterator[Any]:
    """The frames of a stream of sound or pictures that can be decoded; damaged places are counted in `track`."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # what follows can't be found any more
            track.damaged += 1
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            track.damaged += 1


def _joined(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Pieces (T, C) → blocks of BLOCK frames and more."""
    waiting: list[np.ndarray] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= BLOCK:
            yield np.concatenate(waiting)
            waiting, held = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _unreadable(name: str, why: str) -> InputError:
    return InputError(f"{name}: not a sound I can read", hint=f"{SOUNDS_SAID} ({why})")


def check_header(rate: int, channels: int, name: str) -> None:
    """Raise InputError for a rate, or a number of channels, that no sound has."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(
            f"{name}: a sample rate of {rate} Hz can't be right", hint=f"{MIN_RATE} to {MAX_RATE} Hz are read"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels are too many", hint=f"at most {MAX_CHANNELS} are read")


def _promised(file: BinaryIO, opened: Any) -> float:
    """Seconds that the header promises, where it does not guess or leave them open."""
    if opened.format in ("FLAC", "OGG"):
        return opened.frames / opened.samplerate if opened.frames < 1 << 36 else 0.0  # in a pipe no total was known
    place = file.tell()
    missing = missing_share(file)
    file.seek(place)
    return opened.frames / opened.samplerate / (1 - missing) if 0 < missing < 1 else 0.0


def _promised_av(container: Any, stream: Any, rate: int) -> float:
    """Seconds that the header promises of a stream, less what encoders delay and pad; 0 where FFmpeg estimates it."""
    if any(kind in container.format.name for kind in HEADERS) and stream.duration:
        promised = float(stream.duration * stream.time_base)
    else:  # Matroska's
        parts = stream.metadata.get("DURATION", "").split(":")
        try:
            promised = sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
        except ValueError:
            return 0.0
    return promised - DELAY / rate


def _mp3_samples(file: BinaryIO) -> int:
    """How many samples the packets of an MP3 hold: counted, not estimated."""
    import av

    try:
        with open_av(file, "") as container:
            stream = container.streams.best("audio")
            rate = stream.codec_context.sample_rate
            return sum(round(p.duration * p.time_base * rate) for p in container.demux(stream) if p.duration)
    except (av.FFmpegError, InputError):
        return 0
