"""Answers to what a space is asked: the same code here, in a server and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmx.decoders.horizon import FAR
from mmx.errors import MmxError
from mmx.spaces.base import Space
from mmx.spaces.parts import Cuts, Part, embedded, notes_on, parts_of
from mmx.spaces.query import Term
from mmx.spaces.question import KINDS, Answer, Facts, Question, on_disk
from mmx.spaces.tags import Tagger, refuse_texts
from mmx.tasks import find

if TYPE_CHECKING:
    from mmx.guided.language import LanguageModel

KEPT = 4  # sets of labels, whose texts need not be embedded again
Note = Callable[[str], None]


@dataclass(frozen=True)
class Labelled:
    """A tagger, and those of its labels that are far from everything that the space was trained on."""

    tagger: Tagger
    far: list[str]


class Consulted:
    """What questions are put to: a space, and a language model where captions are written. What it has worked out for
    one question it need not work out for the next."""

    def __init__(self, space: Space, lm: LanguageModel | None = None) -> None:
        self.space, self.lm = space, lm
        self.labelled = lru_cache(KEPT)(self._labelled)
        self._writing: Consulted | None = None
        self.captioner: tuple[Any, Any] | None = None  # the last one, behind what it was made for

    def _labelled(self, labels: tuple[str, ...]) -> Labelled:
        tagger = Tagger(self.space, labels)
        return Labelled(tagger, far_texts(self.space, tagger.labels))

    def writing(self, lm: LanguageModel) -> Consulted:
        """The same space, with a language model."""
        if self._writing is None or self._writing.lm is not lm:
            self._writing = Consulted(self.space, lm)
        return self._writing

    @cached_property
    def facts(self) -> Facts:
        """What commands need to know of it."""
        space = self.space
        return Facts(space.name, space.fingerprint, space.dim, space.modalities)

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """What each is known by, by role."""
        own = {"space": {"name": self.space.name, "sha256": self.space.fingerprint}}
        return own | ({"lm": self.lm.at.as_dict()} if self.lm else {})

    def run(self, question: Question) -> Iterator[Answer]:
        """Answers as they come, each with the notes before it. An error of ours is the last one's; others are
        raised."""
        notes: list[str] = []
        try:
            with on_disk(question) as own:
                for answer in find(KINDS[question.kind].answered)(self, own, notes.append):
                    answer.notes, notes[:] = [*notes, *answer.notes], []
                    yield answer
        except MmxError as error:
            yield Answer(notes=list(notes), error=error)
            return
        if notes:
            yield Answer(notes=notes)


def far_texts(space: Space, texts: Sequence[str]) -> list[str]:
    """Those of the texts that are far from everything that a space was trained on."""
    if space.are_far is None or not texts:
        return []
    return [text for text, is_far in zip(texts, space.are_far(texts), strict=True) if is_far]


def read_parts(space: Space, term: Term, cuts: Cuts, note: Note) -> Iterator[Part]:
    """A file's parts, with notes on what is unusual about them."""
    for part in parts_of(space, term.source, term.name, cuts):
        for text in notes_on(term.name, [part]):
            note(text)
        yield part


def labels(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """Of labels, which of them are far."""
    known = consulted.labelled(question.options.labels)
    note(f"{len(known.tagger.labels)} labels in the space {consulted.space.name}")
    for text in known.far:
        note(f"{text}: {FAR}")
    yield Answer([{"labels": known.tagger.labels, "far": known.far}])


def tag(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """Of each part of a file, which labels fit it."""
    space, options, (term,) = consulted.space, question.options, question.terms
    known = consulted.labelled(options.labels)
    for part, vector in embedded(space, read_parts(space, term, Cuts(options.every), note)):
        refuse_texts(part, term.name)
        tags = known.tagger.tags(vector, part.modality, options.top)
        found = [own for own in tags if own.share >= options.threshold]
        about = {"schema": "mmx.tags/1", "input": term.name} | part.about()
        about |= {"tags": [vars(own) for own in found]}
        about |= {"none_of_these": known.tagger.none_of_these(vector, part.modality)}
        yield Answer([about | {"far": [own.label for own in found if own.label in known.far]}])


def embed(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """A file's, or a text's, parts, and in one blob their unit vectors (N, D)."""
    space, (term,) = consulted.space, question.terms
    if term.kind == "text":
        parts = iter([Part("text", term.value)])
    else:
        parts = read_parts(space, term, Cuts(question.options.every), note)
    rows = list(embedded(space, parts))
    abouts = [{"id": term.name} | part.about() for part, _ in rows]
    yield Answer(abouts, [floats(torch.stack([vector for _, vector in rows]))])


def floats(vectors: Tensor) -> bytes:
    """Numbers as float32, in the order in which they lie."""
    return vectors.float().contiguous().numpy().tobytes()


def tensor(blob: bytes) -> Tensor:
    """What `floats` made, as one row."""
    return torch.from_numpy(np.frombuffer(blob, np.float32).copy())
