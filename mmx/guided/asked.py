"""What is to be captioned, as it is typed: files, or sums as of `mmx search`. Imports nothing heavy."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmx.digest import sha256
from mmx.errors import UsageError
from mmx.media.files import Source, expand, is_file, is_stream, kind_of_file
from mmx.media.names import printable
from mmx.spaces.query import Term, parse_query

OPENINGS = {"image": "Image of a", "sound": "The sound of a"}  # what a caption begins with, unless the user says


@dataclass(frozen=True)
class Asked:
    """One thing to be captioned: the terms of a sum, a single file most often."""

    name: str
    terms: tuple[Term, ...]
    read: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    def stdin(self) -> bytes:
        """What is on stdin or in a pipe, which can be read once. Raises InputError."""
        name = next(term.value for term in self.terms if term.kind == "stdin")
        if name not in self.read:
            self.read[name] = Source(None if name == "-" else Path(name), Path("stdin")).read()
        return self.read[name]

    def contents(self) -> tuple[Term, ...]:
        """The terms, with what can be read once. Raises InputError."""
        return tuple(replace(term, data=self.stdin()) if term.kind == "stdin" else term for term in self.terms)

    @property
    def opening(self) -> str:
        """What its caption begins with: of a sum of nothing but sounds, of a sound."""
        return opening(self.terms)

    def about(self) -> list[dict[str, Any]]:
        """The inputs as provenance keeps them: names without folders, and digests. Raises InputError."""
        return [self._about(term) for term in self.terms]

    def _about(self, term: Term) -> dict[str, Any]:
        if term.kind == "text":
            return {"text": term.value, "weight": term.weight}
        data = self.stdin() if term.kind == "stdin" else Source(Path(term.value), Path(term.value)).read()
        name = "stdin" if term.kind == "stdin" else printable(Path(term.value).name)
        return {"name": name, "sha256": sha256(data), "weight": term.weight}


def opening(terms: Iterable[Term]) -> str:
    """What a caption of a sum begins with."""
    kinds = {kind_of_file(Path(term.value)) for term in terms if term.kind == "file"}
    return OPENINGS["sound" if kinds == {"sound"} else "image"]


def asked(inputs: Iterable[str]) -> list[Asked]:
    """Files, folders, globs, `-` and sums → what is to be captioned. Raises UsageError."""
    found: list[Asked] = []
    for given in inputs:
        sums = [] if given == "-" or is_file(given) or glob.glob(given, recursive=True) else _sum(given)
        if sums:
            found.append(Asked(given, tuple(sums)))
        else:
            sources = expand([given], "image", "sound", "video")
            found += [Asked(source.name, (_term(source),)) for source in sources]
    if sum(term.value == "-" for one in found for term in one.terms) > 1:
        raise UsageError("'-' can be given once")
    return found


def _term(source: Source) -> Term:
    name = "-" if source.path is None else str(source.path)
    return Term("stdin" if name == "-" or is_stream(name) else "file", name)


def _sum(given: str) -> list[Term]:
    """The terms of a sum, or of one file with a weight; none for what has no sign in it, which then is a name. Raises
    UsageError."""
    if not any(sign in given for sign in (" + ", " - ", "*")):
        return []
    terms = parse_query(given)
    return terms if len(terms) > 1 or terms[0].kind == "file" else []
