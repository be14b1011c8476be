"""How well texts that differ in their last token fit a point of a space; nothing is read twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.guided.language import LanguageModel, vocabulary_digest
from mmx.spaces.base import Space
from mmx.spaces.continued import Continued

TABLES = 64  # beginnings of which is kept what was read after them
TEXTS = 20_000  # texts whose points are kept
READ = 256  # texts that are read at once


class Scorer(Protocol):
    """Scores candidates. room: tokens that a text may have with its start and without its end."""

    room: int

    def __call__(self, beginnings: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        """Beginnings (R, T), tokens (R, K) that may follow on each, and unit vectors (R, D) → cosines (R, K) between
        the whole texts and those, on the beginnings' device."""
        ...


@dataclass
class _Table:
    """Of one beginning: which tokens after it were read, and the points (V, D) of what that says."""

    known: Tensor
    points: Tensor


class ByIds:
    """A text tower that has the language model's own vocabulary: a candidate is a beginning and one id, and the
    beginning's keys and values are those of all of its candidates. What was read is kept by ids.

    mean (D,): of texts, which is taken off.
    """

    def __init__(self, continued: Continued, vocabulary: int, mean: Tensor) -> None:
        self.continued, self.vocabulary, self.mean = continued, vocabulary, mean.to(continued.device)
        self.room = continued.length - 1
        self._tables: OrderedDict[tuple[int, ...], _Table] = OrderedDict()

    def __call__(self, beginnings: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        device, there = beginnings.device, self.continued.device
        beginnings, candidates, targets = (given.to(there) for given in (beginnings, candidates, targets))
        keys = [tuple(row) for row in beginnings.tolist()]
        # held here: of more beginnings than are kept the first are let go while the last are still looked up
        tables = {key: self._table(key) for key in dict.fromkeys(keys)}
        missing: dict[tuple[int, ...], Tensor] = {}
        for key, ids in zip(keys, candidates, strict=True):
            new = ids[~tables[key].known[ids]]
            if len(new):
                tables[key].known[new] = True
                missing[key] = torch.cat((missing[key], new)) if key in missing else new
        self._read(missing, tables)
        rows = zip(keys, candidates, targets, strict=True)
        return torch.stack([tables[key].points[ids] @ target for key, ids, target in rows]).to(device)

    def _table(self, key: tuple[int, ...]) -> _Table:
        """The table of a beginning; those that were used longest ago go."""
        if key not in self._tables:
            size, device = self.vocabulary, self.continued.device
            known = torch.zeros(size, dtype=torch.bool, device=device)
            self._tables[key] = _Table(known, torch.empty(size, len(self.mean), device=device))
            while len(self._tables) > TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def _read(self, missing: dict[tuple[int, ...], Tensor], tables: dict[tuple[int, ...], _Table]) -> None:
        """Fill the tables: all beginnings at once, as many tokens after each as the longest list has."""
        if not missing:
            return
        most = max(map(len, missing.values()))
        beginnings = torch.tensor(list(missing), device=self.continued.device)
        padded = [F.pad(ids, (0, most - len(ids)), value=int(ids[0])) for ids in missing.values()]
        points = F.normalize(self.continued(beginnings, torch.stack(padded)) - self.mean, dim=-1)
        for key, ids, own in zip(missing, missing.values(), points, strict=True):
            tables[key].points[ids] = own[: len(ids)]


class ByText:
    """Any space: candidates are written out, and each text is encoded once.

    mean (D,): of texts, which is taken off.
    """

    def __init__(self, space: Space, lm: LanguageModel, mean: Tensor) -> None:
        self.space, self.lm, self.mean = space, lm, mean
        self.room = lm.length
        self._points: dict[str, Tensor] = {}

    def __call__(self, beginnings: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        rows = zip(beginnings.tolist(), candidates.tolist(), strict=True)
        texts = [self.lm.decode([*beginning, token]) for beginning, tokens in rows for token in tokens]
        points = self.points(texts).unflatten(0, candidates.shape)
        return torch.einsum("rkd,rd->rk", points, targets.cpu()).to(beginnings.device)

    def points(self, texts: Sequence[str]) -> Tensor:
        """Texts → unit vectors (N, D) on the CPU, less the mean of texts."""
        if len(self._points) > TEXTS:
            self._points.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._points]
        for start in range(0, len(new), READ):
            part = new[start : start + READ]
            vectors = F.normalize(self.space.encode([text or " " for text in part], "text") - self.mean, dim=-1)
            self._points.update(zip(part, vectors, strict=True))
        return torch.stack([self._points[text] for text in texts])


def scorer_for(space: Space, lm: LanguageModel, mean: Tensor) -> Scorer:
    """By ids where the space reads the language model's own, else by text."""
    own = space.continued
    if own is not None and own.end == lm.end and vocabulary_digest(own.tokenizer) == vocabulary_digest(lm.tokenizer):
        return ByIds(own, lm.vocabulary, mean)
    return ByText(space, lm, mean)
