"""What a text is to the starter's text tower before anything is computed: subwords, their numbers, their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmx.models.store import assets

TOWER = ("starter", "image", "teacher")
EMBEDDINGS = "text_model.embeddings.token_embedding.weight"
SPACE = "Ġ"  # how a byte-level vocabulary writes a space


@dataclass(frozen=True)
class Subword:
    """A piece of a text, its number in the vocabulary, and the pieces nearest to it with their cosines."""

    piece: str
    number: int
    near: tuple[tuple[str, float], ...] = ()


def subwords(text: str, count: int = 3) -> list[Subword]:
    """A text → its subwords in order, without the marks at its ends, each with its `count` nearest: by the cosine of
    rows of the embedding table.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = assets().joinpath(*TOWER)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    table = load_file(folder / "text_encoder" / "model.safetensors")[EMBEDDINGS].astype(np.float32)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    found = tokenizer.encode(text, add_special_tokens=False)
    return [
        Subword(_shown(piece), number, _near(table, number, count, tokenizer.id_to_token))
        for piece, number in zip(found.tokens, found.ids, strict=True)
    ]


def _near(
    table: np.ndarray, number: int, count: int, name: Callable[[int], str | None]
) -> tuple[tuple[str, float], ...]:
    cosines = table @ table[number]
    cosines[number] = -2
    best = np.argsort(-cosines, kind="stable")[:count]
    return tuple((_shown(name(int(other)) or ""), float(cosines[other])) for other in best)


def _shown(piece: str) -> str:
    return piece.replace(SPACE, "_")
