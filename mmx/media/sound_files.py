"""Sound files → blocks of samples. libsndfile reads first, FFmpeg what it can't open or does not read to the end.

Lengths in headers are hints here: samples are counted, and what a header promised is kept beside what came.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from mmx.errors import InputError
from mmx.media.formats import DEMUXERS, MAX_CHANNELS, MAX_RATE, MIN_RATE, SOUNDS_SAID

BLOCK = 1 << 17  # frames that are decoded at a time
SLACK = 0.1  # seconds that a header may promise too much: paddings of encoders, sizes that count a header
MP3_PACKET = 1152  # samples
DELAY = 4096  # samples, that encoders put before a sound and behind it, and durations may count
HEADERS = ("mp4", "flac", "ape", "tta")  # FFmpeg's formats whose duration is written down, not estimated


@dataclass
class Track:
    """A sound that is being read. `blocks` gives float32 (T, C); what follows is known when they are at their end."""

    rate: int
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

    def losses(self) -> tuple[str, ...]:
        """What is missing, for the user."""
        if self.short:
            promised, there = f"{self.promised:.2f} s", f"{self.seconds:.2f} s"
            return (f"cut short or damaged: of the {promised} that its header promises {there} are there",)
        if self.damaged:
            places = "1 place, which is" if self.damaged == 1 else f"{self.damaged} places, which are"
            return (f"damaged at {places} left out",)
        return ("it may be cut short: it ends without the mark that ends such files",) if self.unended else ()


def soundfile_track(file: BinaryIO, name: str) -> Track | None:
    """Read with libsndfile. None where it can't open the file. Raises InputError for absurd headers."""
    import soundfile

    class Forward(soundfile.SoundFile):
        """Read from the start to the end: soundfile would seek after each block, which damages MP3 and fails in cut FLAC."""

        def seekable(self) -> bool:
            return False

    file.seek(0)
    try:
        opened = Forward(file)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        return None
    _check(opened.samplerate, opened.channels, name)
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
            there, said = _mp3_samples(file), _mp3_says(file)
            track.more = there > track.count + 3 * MP3_PACKET
            if said > there + 3 * MP3_PACKET:
                track.promised = track.seconds + (said - there) / track.rate
        elif kind == "OGG":
            track.unended = not _ogg_ends(file)

    track.blocks = blocks()
    return track


def av_track(file: BinaryIO | str, name: str) -> Track:
    """Read with the FFmpeg that PyAV's wheel carries. Raises InputError where it finds no sound."""
    import av

    container = open_av(file, name)
    stream = container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        container.close()
        raise InputError(f"{name}: there is no sound in it", hint="is it a picture, or a video without sound?")
    frames = sound_frames(container, stream, track := Track(0))
    try:
        first = next(frames, None)
    except av.FFmpegError as error:
        raise _unreadable(name, str(error.strerror)) from None
    if first is None:
        container.close()
        raise InputError(f"{name}: there is no sound in it", hint="copy or download it again")
    _check(first.sample_rate, first.layout.nb_channels, name)
    track.rate = first.sample_rate
    promised, planar = _promised_av(container, stream, track.rate), Planar(first)

    def pieces() -> Iterator[np.ndarray]:
        yield from planar(first)
        for frame in frames:
            yield from planar(frame)
        yield from planar.rest()

    def blocks() -> Iterator[np.ndarray]:
        with container:
            for block in _joined(pieces()):
                track.count += len(block)
                yield block
        missing = 0.0 if isinstance(file, str) else _missing(file)
        track.promised = track.seconds / (1 - missing) if 0 < missing < 1 else promised

    track.blocks = blocks()
    return track


class Planar:
    """FFmpeg's frames → float32 (C, T) of the first one's rate and channels, though they change on the way."""

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
            self._resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        frame.pts = None  # a clock that jumps back would be an error of the filter
        return rest + [piece.to_ndarray() for piece in self._resampler.resample(frame)]

    def rest(self) -> list[np.ndarray]:
        """What is held back at the end."""
        return [] if self._resampler is None else [piece.to_ndarray() for piece in self._resampler.resample(None)]


def open_av(file: BinaryIO | str, name: str) -> Any:
    """A file for FFmpeg, of the formats that are no playlists. Raises InputError."""
    import av

    if not isinstance(file, str):
        file.seek(0)
    try:
        return av.open(file, metadata_errors="replace", options={"format_whitelist": ",".join(DEMUXERS)})
    except av.FFmpegError as error:
        raise _unreadable(name, str(error.strerror)) from None


def sound_frames(container: Any, stream: Any, track: Track) -> Iterator[Any]:
    """The frames of a stream that can be decoded; the others are counted in `track.damaged`."""
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
    """Pieces (C, T) → blocks (T, C) of BLOCK frames and more."""
    waiting: list[np.ndarray] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += piece.shape[1]
        if held >= BLOCK:
            yield np.concatenate(waiting, axis=1).T
            waiting, held = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1).T


def _unreadable(name: str, why: str) -> InputError:
    return InputError(f"{name}: not a sound I can read", hint=f"{SOUNDS_SAID} ({why})")


def _check(rate: int, channels: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(
            f"{name}: a sample rate of {rate} Hz can't be right", hint=f"{MIN_RATE} to {MAX_RATE} Hz are read"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name}: {channels} channels are too many", hint=f"at most {MAX_CHANNELS} are read")


@dataclass(frozen=True)
class Chunks:
    """A container that is a list of chunks: where it begins, how a chunk's head is packed, what its size counts and is padded to."""

    magic: bytes
    first: int
    head: str
    data: bytes
    counts_head: bool = False
    padding: int = 2


CONTAINERS = (
    Chunks(b"RIFF", 12, "<4sI", b"data"),
    Chunks(b"RIFX", 12, ">4sI", b"data"),
    Chunks(b"FORM", 12, ">4sI", b"SSND"),
    Chunks(b"caff", 8, ">4sQ", b"data", padding=1),
    Chunks(b"riff\x2e\x91\xcf\x11", 40, "<16sQ", b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", True, 8),
)
OPEN_ENDED = 0x7FFFF000  # sizes from here on are what writers into pipes put where the size belongs


def _missing(file: BinaryIO) -> float:
    """Of the bytes that the header of a chunked file promises, the share that is not there; 0 where it promises none."""
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    head = file.read(16)
    if head[:4] == b".snd":
        start, size = struct.unpack(">II", head[4:12])
        return _share(size, end - start)
    kind = next((kind for kind in CONTAINERS if head.startswith(kind.magic)), None)
    if kind is None:
        return 0.0
    length, at = struct.calcsize(kind.head), kind.first
    while at + length <= end:
        file.seek(at)
        name, size = struct.unpack(kind.head, file.read(length))
        size -= length if kind.counts_head else 0
        if name == kind.data:
            return _share(size, end - at - length)
        at += length + size + -size % kind.padding
    return 0.0


def _share(promised: int, there: int) -> float:
    return max(0.0, 1 - there / promised) if 0 < promised < OPEN_ENDED else 0.0


def _promised(file: BinaryIO, opened: Any) -> float:
    """Seconds that the header promises, where it does not guess or leave them open."""
    if opened.format in ("FLAC", "OGG"):
        return opened.frames / opened.samplerate if opened.frames < 1 << 36 else 0.0  # in a pipe no total was known
    place = file.tell()
    missing = _missing(file)
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


def _mp3_says(file: BinaryIO) -> int:
    """How many samples an MP3 says that its packets hold; 0 where it says nothing."""
    file.seek(0)
    head = file.read(10)
    tags = 0
    if head[:3] == b"ID3" and len(head) == 10:
        tags = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(tags)
    first = file.read(256)
    at = max(first.find(mark) for mark in (b"Xing", b"Info"))
    if at < 0 or len(first) < at + 12 or not first[at + 7] & 1:
        return 0
    full = first[max(0, first.find(b"\xff")) + 1] & 8  # MPEG-1; else packets are half as long
    return int.from_bytes(first[at + 8 : at + 12], "big") * (MP3_PACKET if full else MP3_PACKET // 2)


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


def _ogg_ends(file: BinaryIO) -> bool:
    """Whether the last page of an OGG says that it is the last."""
    file.seek(0, 2)
    file.seek(max(0, file.tell() - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    return at >= 0 and len(tail) > at + 5 and bool(tail[at + 5] & 4)
