"""Files, some at a time → what in each of them its rows are, and their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmx.errors import InputError, MmxError
from mmx.spaces.answers import Consulted, Note, floats
from mmx.spaces.base import Space
from mmx.spaces.compass import known_means
from mmx.spaces.parts import BATCH, Cuts, Part, parts_of, vectors_of
from mmx.spaces.question import Answer, Question, Row

CHUNK = 64 << 20  # bytes of files that are embedded together, at most, unless it is one

Key = tuple[str, float]  # what a file's rows follow from: its sha256, and how videos are cut


@dataclass(frozen=True)
class File:
    """A file as it is now. state: its size and times, None where they may not tell the next change. size: in bytes."""

    path: str
    sha256: str
    every: float
    state: list[int] | None
    size: int = 0

    @property
    def key(self) -> Key:
        return self.sha256, self.every

    def row(self, about: Row) -> Row:
        """A row of it; about: what in it this is."""
        return {"path": self.path} | about | {"sha256": self.sha256, "every": self.every, "state": self.state}


class Embedder(Protocol):
    """What embeds files in another process: as `embedded` does here, chunk by chunk and in their order."""

    def embedded(self, chunks: Iterable[Sequence[File]]) -> Iterator[Iterable[Embedded]]: ...

    def means(self) -> Tensor:
        """(M, D): as `known_means`."""
        ...


@dataclass
class Embedded:
    """A file, or what is wrong with it; else what in it its rows are, and their vectors (N, D), float16."""

    file: File
    abouts: list[Row] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    failed: MmxError | None = None

    @property
    def rows(self) -> list[Row]:
        return [self.file.row(about) for about in self.abouts]


def chunked(files: Iterable[File]) -> Iterator[list[File]]:
    """Files that are embedded together. Which these are follows from the files alone: other batches give other last
    bits."""
    chunk: list[File] = []
    for file in files:
        if chunk and (len(chunk) == BATCH or sum(own.size for own in chunk) + file.size > CHUNK):
            yield chunk
            chunk = []
        chunk.append(file)
    if chunk:
        yield chunk


def embedded(space: Space, files: Sequence[File], cuts: Cuts, sources: Mapping[str, Any] = {}) -> Iterator[Embedded]:
    """A chunk's files, each when all of it is embedded: small ones together, big ones a batch at a time.

    sources: by path, the content of files that do not lie there, or where else they lie.
    """
    waiting: list[tuple[Embedded, Part]] = []
    read: list[Embedded] = []  # to their ends

    def encode() -> Iterator[Embedded]:
        vectors = vectors_of(space, [part for _, part in waiting]).half().numpy()
        for (own, part), vector in zip(waiting, vectors, strict=True):
            own.abouts.append(part.about())
            own.vectors.append(vector)
        waiting.clear()
        yield from read
        read.clear()

    for file in files:
        own = Embedded(file)
        for part in _parts(space, own, cuts, sources.get(file.path, Path(file.path))):
            waiting.append((own, part))
            if len(waiting) == BATCH:
                yield from encode()
        if own.failed:
            waiting[:] = [(other, part) for other, part in waiting if other is not own]
            yield own
        else:
            read.append(own)
    yield from encode()


def _parts(space: Space, own: Embedded, cuts: Cuts, source: Path | bytes) -> Iterator[Part]:
    """The parts of a file; whatever is wrong with it is noted, and the others are read."""
    path = own.file.path
    try:
        yield from parts_of(space, source, path, cuts)
    except MmxError as error:
        own.failed = error
    except (GeneratorExit, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        own.failed = InputError(f"{path}: it can't be read", hint=f"{type(error).__name__}: {error}")


def rows(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """Of each of a chunk's files, in their order, what in it rows are, and in a blob their vectors."""
    files = [File(term.value, "", 0.0, None) for term in question.terms]
    sources, cuts = {term.value: term.source for term in question.terms}, Cuts(question.options.every)
    for own in embedded(consulted.space, files, cuts, sources):
        about = {"path": own.file.path, "rows": own.abouts, "failed": own.failed.as_dict() if own.failed else None}
        yield Answer([about], [b"".join(vector.tobytes() for vector in own.vectors)])


def means(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """In a blob the means of the space's modalities, as far as it knows them."""
    yield Answer(blobs=[floats(known_means(consulted.space))])
