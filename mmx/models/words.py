"""Vectors of words on disk: which are near a word, or a sum of words."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mmx.errors import ModelError, UsageError
from mmx.models.store import locate

FORMAT = "mmx.words/1"
VECTORS, CONFIG = "model.safetensors", "config.json"
ANALOGY = re.compile(r"([^:\s]+):([^:\s]+)::([^:\s]+)")
HOW = 'such as: puppy, "puppy - dog + cat", dog:puppy::cat'


@dataclass(frozen=True)
class Term:
    """A word, and by how much it counts."""

    word: str
    weight: float = 1.0


@dataclass(frozen=True)
class WordVectors:
    """words: by number, the most frequent first. table (V, D): their vectors, of unit norm, float32."""

    words: list[str]
    table: np.ndarray

    @classmethod
    def of(cls, words: Sequence[str], vectors: np.ndarray) -> WordVectors:
        """From vectors of any length, (V, D)."""
        norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return cls(list(words), (vectors / norms).astype(np.float32))

    @classmethod
    def load(cls, name: str | None = None) -> WordVectors:
        """A folder that `mmx train-words` wrote; None is the starter. Raises ModelError."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = locate(name, "words", "words").folder
        try:
            about = json.loads((folder / CONFIG).read_text(encoding="utf8"))
            words, vectors = about["words"], load_file(folder / VECTORS)["vectors"].astype(np.float32)
            fits = about["format"] == FORMAT and vectors.ndim == 2 and len(words) == len(vectors)
            fits = fits and bool(np.isfinite(vectors).all()) and all(isinstance(word, str) for word in words)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            fits = False
        if not fits:
            raise ModelError(f"{folder.name}: no vectors of words", hint="mmx train-words makes them")
        return cls.of(words, vectors)

    def number(self, word: str) -> int:
        """Of a word. Raises UsageError where it has no vector."""
        try:
            return self.words.index(word.lower())
        except ValueError:
            near = difflib.get_close_matches(word.lower(), self.words, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"{len(self.words)} words have one"
            raise UsageError(f"{word}: this word has no vector", hint=hint) from None

    def point_of(self, word: str) -> np.ndarray:
        """A word's own vector (D,). Raises UsageError."""
        return self.table[self.number(word)]

    def point(self, terms: Sequence[Term]) -> np.ndarray:
        """The weighted sum of words as a unit vector (D,). Raises UsageError."""
        whole = sum(term.weight * self.table[self.number(term.word)] for term in terms)
        return whole / max(float(np.linalg.norm(whole)), 1e-12)

    def nearest(self, point: np.ndarray, count: int, without: Collection[str] = ()) -> list[tuple[str, float]]:
        """Words and their cosines with a unit vector (D,), the nearest first, some left out."""
        cosines = self.table @ point
        left_out = {self.number(word) for word in without}
        best = np.argsort(-cosines, kind="stable")[: count + len(left_out)]
        return [(self.words[k], float(cosines[k])) for k in best.tolist() if k not in left_out][:count]


def parse_terms(text: str) -> list[Term]:
    """Words joined by + and -; or a:b::c, which is b - a + c. Raises UsageError."""
    analogy = ANALOGY.fullmatch(text.strip())
    if analogy:
        a, b, c = analogy.groups()
        return [Term(b), Term(a, -1.0), Term(c)]
    found: list[Term] = []
    sign = ""
    for part in text.split():
        if part in ("+", "-"):
            if sign:
                raise UsageError(f"{text}: a word is missing before {part}", hint=HOW)
            sign = part
        elif found and not sign:
            raise UsageError(f"{text}: + or - is missing before {part}", hint=HOW)
        else:
            found.append(Term(part, -1.0 if sign == "-" else 1.0))
            sign = ""
    if sign or not found:
        raise UsageError(f"{text!r}: a word is missing", hint=HOW)
    return found
