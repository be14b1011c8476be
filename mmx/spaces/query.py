"""What is searched for: a text, a file, or a weighted sum of them, as it is typed. Imports nothing heavy."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from mmx.errors import UsageError
from mmx.media.files import MEDIA, is_file

QUOTES = {"'": "'", '"': '"'}
WEIGHT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*\*\s*")
ARRAY = "array:"
HOW = "such as: bark.wav + 0.5*beach.jpg - 'rain'"


@dataclass(frozen=True)
class Term:
    """A summand. kind: "text", "file", "array", "stdin", or "stream" of a pipe's content; value: the text or the path.
    data: the content, or where it lies now, if that is not the path."""

    kind: str
    value: str
    weight: float = 1.0
    data: bytes | Path | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "stdin" if self.kind == "stdin" else self.value

    @property
    def source(self) -> bytes | Path:
        """Its content, or where that lies."""
        return Path(self.value) if self.data is None else self.data


def parse_query(query: str) -> list[Term]:
    """A query → its terms.

    `+` and `-` with spaces around them join terms; one may begin with a weight and `*`. A term in quotes is a text;
    another is a file where there is one of this name, else a text; array:FILE is a file, be it a picture, that holds an
    array. A query that as a whole names a file, or is `-`, is
    that. Raises UsageError for what can't be read so, and for a file that is not there.
    """
    if query == "-":
        return [Term("stdin", "-")]
    if is_file(query):
        return [Term("file", query)]
    terms = [_term(text, sign, query) for sign, text in _summands(query)]
    return terms


def _summands(query: str) -> list[tuple[float, str]]:
    """A query → (1 or -1, term) of each, split at signs outside quotes that have a space on either side."""
    found, sign, start, closing = [], 1.0, 0, ""
    padded = f"{query} "
    for at, letter in enumerate(query):
        before = not query[:at].strip() or query[at - 1].isspace()
        if closing:
            closing = "" if letter == closing else closing
        elif letter in QUOTES and _opens(query[start:at]):
            closing = QUOTES[letter]
        elif letter in "+-" and before and padded[at + 1].isspace():
            if query[start:at].strip() or found or start:
                found.append((sign, query[start:at]))
            sign, start = (1.0 if letter == "+" else -1.0), at + 1
    if closing:
        raise UsageError(f"{query}: a quote is not closed", hint=HOW)
    return [*found, (sign, query[start:])]


def _opens(before: str) -> bool:
    """Whether a quote after this begins a quoted text: it is the first of its term, but for a weight."""
    return not WEIGHT.sub("", before, count=1).strip()


def _term(text: str, sign: float, query: str) -> Term:
    found = WEIGHT.match(text)
    weight = float(found[1]) if found and not is_file(text.strip()) else 1.0
    value = (text[found.end() :] if found and not is_file(text.strip()) else text).strip()
    if not value:
        raise UsageError(f"{query!r}: a term is missing", hint=HOW)
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"{query}: {found[1] if found else weight} is no weight", hint="give one above 0")
    if value[0] in QUOTES:
        inner, _, rest = value[1:].partition(QUOTES[value[0]])
        if rest.strip():
            raise UsageError(f"{query}: something follows the quoted text: {rest.strip()}", hint=HOW)
        if not inner.strip():
            raise UsageError(f"{query}: a text is empty", hint=HOW)
        return Term("text", inner.strip(), sign * weight)
    if is_file(value):
        return Term("file", value, sign * weight)
    if value.startswith(ARRAY):
        path = value.removeprefix(ARRAY)
        if not is_file(path):
            raise UsageError(f"{path}: no such file", hint=f"if it is a text, put it in quotes: '\"{value}\"'")
        return Term("array", path, sign * weight)
    if os.path.splitext(value)[1].lower() in MEDIA and not re.search(r"\s", value):
        raise UsageError(f"{value}: no such file", hint=f"if it is a text, put it in quotes: '\"{value}\"'")
    return Term("text", value, sign * weight)
