"""A file → what of it goes into a space: a picture, a sound, lines of text, or the moments of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmx.errors import InputError, NotAPictureError
from mmx.media.arrays import read_array
from mmx.media.audio import read_audio
from mmx.media.files import Source, is_stream, kind_of_file
from mmx.media.formats import SHORTEST
from mmx.media.image import read_image
from mmx.media.notes import notes_of
from mmx.media.texts import MAX_TEXT
from mmx.media.video import moments
from mmx.spaces.base import Space
from mmx.spaces.question import NEEDS

T = TypeVar("T")
SILENT = -80.0  # dB; a video's sound is left out where it is weaker
HEAD = 4096  # bytes, by which a text is known
BATCH = 32  # parts that are encoded at once


@dataclass(frozen=True)
class Part:
    """A medium and where in its file it is: at `start` seconds of a video, in `line` of a text."""

    modality: str
    medium: Any
    start: float | None = None
    line: int | None = None

    def about(self) -> dict[str, Any]:
        """As rows keep it: what is not there is not named."""
        place = {"start": self.start, "line": self.line}
        text = {"text": self.medium} if self.modality == "text" else {}
        return {"modality": self.modality} | {k: v for k, v in place.items() if v is not None} | text


@dataclass(frozen=True)
class Cuts:
    """How files are cut. every: seconds from one moment of a video to the next."""

    every: float = 2.0


def parts_of(space: Space, source: Path | bytes, name: str, cuts: Cuts = Cuts()) -> Iterator[Part]:
    """A file, or its bytes, by its suffix or else by what is in it → the parts that the space has encoders for, one
    after the other: a video has thousands.

    Raises InputError for what is unreadable or holds nothing, ModelError for a kind of file that the space is not for.
    """
    if isinstance(source, Path) and is_stream(source):  # it can be read once
        source = Source(source, source).read()
    kind = kind_of_file(Path(name)) or _sniffed(source, name)
    if kind == "video" and isinstance(source, bytes):
        kind = "sound"
    if not set(NEEDS[kind]) & set(space.modalities):
        space.require(NEEDS[kind][0])
    found = False
    for part in READERS[kind](space, source, name, cuts):
        if part.modality in space.modalities:
            found = True
            yield part
    if not found:
        raise InputError(f"{name}: there is nothing in it for the space {space.name}")


def _sniffed(source: Path | bytes, name: str) -> str:
    """What a file without a known suffix holds: a picture, a text, or else a sound."""
    try:
        read_image(source, name=name)
    except NotAPictureError:
        return "text" if _is_text(source) else "sound"
    except InputError:
        pass  # a broken one is said to be so where it is read
    return "image"


def _is_text(source: Path | bytes) -> bool:
    """Whether bytes begin as those of a text in UTF-8 do, without control characters."""
    if isinstance(source, bytes):
        start = source[:HEAD]
    else:
        with source.open("rb") as file:
            start = file.read(HEAD)
    words = start.decode("utf8", "ignore")
    whole = len(words.encode()) > len(start) - 4  # the last letter may be cut
    return whole and not any(letter < " " and not letter.isspace() for letter in words)


def _picture(space: Space, source: Path | bytes, name: str, cuts: Cuts) -> Iterator[Part]:
    yield Part("image", read_image(source, name=name))


def _sound(space: Space, source: Path | bytes, name: str, cuts: Cuts) -> Iterator[Part]:
    yield Part("sound", read_audio(source, sample_rate=space.rate, window=space.window, name=name))


def _lines(space: Space, source: Path | bytes, name: str, cuts: Cuts) -> Iterator[Part]:
    try:
        text = (source if isinstance(source, bytes) else source.read_bytes()).decode("utf8")
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a text in UTF-8") from None
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if words := " ".join(line.split())[:MAX_TEXT]:
            yield Part("text", words, line=number)


def _moments(space: Space, source: Path | bytes, name: str, cuts: Cuts) -> Iterator[Part]:
    assert isinstance(source, Path)
    options = {"window": space.window, "sample_rate": space.rate, "needs_sound": False, "name": name}
    found = moments(source, every=cuts.every, **options)
    first = next(found, None) or next(moments(source, every=SHORTEST, **options), None)
    for moment in chain(() if first is None else (first,), found):
        start = round(moment.seconds, 3)
        yield Part("image", moment.frame, start=start)
        if moment.sound is not None and moment.sound.rms_db > SILENT:
            yield Part("sound", moment.sound, start=start)


def _array(space: Space, source: Path | bytes, name: str, cuts: Cuts) -> Iterator[Part]:
    yield Part("array", read_array(source, name))


READERS: dict[str, Callable[[Space, Any, str, Cuts], Iterator[Part]]] = {
    "image": _picture,
    "sound": _sound,
    "text": _lines,
    "video": _moments,
    "array": _array,
}


def notes_on(name: str, parts: Sequence[Part]) -> list[str]:
    """What the user should know of a file that was read."""
    return [f"{name}: {note}" for part in parts for note in notes_of(part.medium)]


def vectors_of(space: Space, parts: Sequence[Part]) -> Tensor:
    """Parts of any modalities → their unit vectors (N, D), in order."""
    vectors = torch.zeros(len(parts), space.dim)
    for modality in space.modalities:
        rows = [number for number, part in enumerate(parts) if part.modality == modality]
        vectors[rows] = space.encode([parts[number].medium for number in rows], modality)
    return vectors


def embedded(space: Space, parts: Iterable[Part]) -> Iterator[tuple[Part, Tensor]]:
    """Parts, each with its unit vector (D,)."""
    for batch in batched(parts, BATCH):
        yield from zip(batch, vectors_of(space, batch), strict=True)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last of what is left."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
