"""What a space is asked, and what it answers: plain data, free of torch, that a process may hand to another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from mmx.media.files import Source, is_stream, kind_of_file
from mmx.recipes.asking import Captioning, Cutting, Locating, Searching, Tagging
from mmx.spaces.query import Term

Row = dict[str, Any]  # what a row of an index is of: path, modality, sha256, ...
STDIN = "stdin"
NEEDS = {kind: (kind,) for kind in ("image", "sound", "text", "array")} | {"video": ("image", "sound")}


@dataclass(frozen=True)
class Kind:
    """A kind of question: its options, "module:function" of what answers it, how few and how many terms it has, and how
    many of the first of them are files."""

    options: type
    answered: str
    least: int = 0
    most: int = 1_000_000
    files: int = 0

    def fits(self, terms: Sequence[Term]) -> bool:
        """Whether a question may have these terms."""
        return self.least <= len(terms) <= self.most and all(term.kind != "text" for term in terms[: self.files])


KINDS = {
    "labels": Kind(Tagging, "mmx.spaces.answers:labels"),
    "tag": Kind(Tagging, "mmx.spaces.answers:tag", 1, 1, files=1),
    "embed": Kind(Cutting, "mmx.spaces.answers:embed", 1, 1),
    "search": Kind(Searching, "mmx.spaces.search:search", 1),
    "localize": Kind(Locating, "mmx.spaces.place:localize", 2, files=1),
    "rows": Kind(Cutting, "mmx.spaces.embedding:rows", 1, files=1_000_000),
    "means": Kind(Cutting, "mmx.spaces.embedding:means"),
    "point": Kind(Captioning, "mmx.guided.captioning:point", 1),
    "caption": Kind(Captioning, "mmx.guided.captioning:caption"),
}
ASKING = ("embed", "tag", "search", "localize", "caption")  # commands that ask a server
CONSULTING = (*ASKING, "index", "avatar")  # commands that need a space


@dataclass(frozen=True)
class Question:
    """kind: a key of KINDS. terms: what it is about: files, or a sum. blobs: what else comes with it."""

    kind: str
    options: Any
    terms: tuple[Term, ...] = ()
    blobs: tuple[bytes, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.terms[0].name if self.terms else ""

    def sent(self) -> Question:
        """The same with the contents of all files in it, for who does not have them. An index, as models, is named by
        its place. Raises InputError."""
        options = self.options
        if isinstance(options, Searching):
            options = replace(options, index=os.path.abspath(options.index))
        return replace(self, options=options, terms=tuple(_read(term) for term in self.terms))


@dataclass
class Answer:
    """results: objects as `--json` has them. blobs: vectors as float32, or PNGs. notes: for the user. error: that the
    rest can't be answered for."""

    results: list[dict[str, Any]] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: Exception | None = None

    def add(self, more: Answer) -> None:
        """Put another one behind it."""
        self.results += more.results
        self.blobs += more.blobs
        self.notes += more.notes
        self.error = self.error or more.error


@dataclass(frozen=True)
class Facts:
    """Of a space what commands need to know: its name, fingerprint and width, what it has encoders for."""

    name: str
    fingerprint: str
    dim: int
    modalities: tuple[str, ...]

    def may_hold(self, path: Path) -> bool:
        """Whether a file may hold what the space has encoders for, by its suffix."""
        kind = kind_of_file(path)
        return kind is None or bool(set(NEEDS[kind]) & set(self.modalities))


@dataclass(frozen=True)
class Hit:
    """A row of an index. score: the cosine with the query, both less the means of their modalities. standing: the same
    in units of what is usual between the query and rows of that modality, by which hits of several are ordered."""

    score: float
    row: Row
    standing: float


def term_of(source: Source) -> Term:
    """A source as what is asked about; stdin, and what lies in a store, is read now. Raises InputError,
    NetworkError."""
    if source.path is not None:
        return Term("file", str(source.path))
    kind = "stdin" if source.name == STDIN else "file"  # what lies in a store has a name
    return Term(kind, source.name, data=source.read())


def with_stdin(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Terms with what stdin holds, which is read now. Raises InputError."""
    return tuple(term_of(Source(None, Path("stdin"))) if term.kind == "stdin" else term for term in terms)


def _read(term: Term) -> Term:
    if term.kind == "text" or term.data is not None:
        return term
    path = Path(term.value)
    kind = "stream" if term.kind == "file" and is_stream(path) else term.kind
    return replace(term, kind=kind, data=Source(path, path).read())


@contextmanager
def on_disk(question: Question) -> Iterator[Question]:
    """The question with videos as files, which they are read from. A pipe's content is none, whatever it is called."""
    with ExitStack() as kept:
        yield replace(question, terms=tuple(kept.enter_context(_filed(term)) for term in question.terms))


@contextmanager
def _filed(term: Term) -> Iterator[Term]:
    if term.kind != "file" or not isinstance(term.data, bytes) or kind_of_file(Path(term.value)) != "video":
        yield term
        return
    with NamedTemporaryFile(suffix=Path(term.value).suffix) as file:
        file.write(term.data)
        file.flush()
        yield replace(term, data=Path(file.name))


def raised(answer: Answer) -> Answer:
    """An answer without an error. Raises its error."""
    if answer.error is not None:
        raise answer.error
    return answer
