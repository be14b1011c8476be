"""What of an index is nearest to a query: exact search, corrected for the gap between modalities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.errors import ModelError, UsageError
from mmx.spaces.base import MODALITIES, Space
from mmx.spaces.index import TRIES, Index
from mmx.spaces.parts import Cuts, Part, parts_of, vectors_of
from mmx.spaces.query import Term
from mmx.spaces.shards import Row, Shard

BLOCK = 4096  # rows that are compared at a time
FEW = 16  # rows of a modality; of fewer, the mean is taken to be nearer to nothing
CANCELLED = 1e-4  # norm of a sum whose terms leave nothing


@dataclass(frozen=True)
class Hit:
    """A row of the index, and its score: the cosine with the query, both less the means of their modalities."""

    score: float
    row: Row


class Searcher:
    """An index and its space. centred: take the means of modalities off, without which a query's own modality comes
    first (the modality gap, Liang et al. 2022)."""

    def __init__(self, index: Index, space: Space, *, centred: bool = True) -> None:
        index.require(space)
        self.index, self.space = index, space
        self.means = self._means() if centred else torch.zeros(len(MODALITIES), space.dim)

    def _means(self) -> Tensor:
        """(M, D): the mean of the vectors of each modality; of a modality with few rows it is drawn to a mean of what
        the space knows, or to nothing."""
        counts = torch.tensor([self.index.counts[modality] for modality in MODALITIES])[:, None]
        known = torch.zeros(len(MODALITIES), self.space.dim)
        if self.space.labels:
            modality = next(iter(self.space.prompts))
            known[MODALITIES.index("text")] = self.space.encode_labels(self.space.labels, modality).mean(0)
        return (torch.from_numpy(self.index.sums).float() + FEW * known) / (counts + FEW)

    def direction(self, parts: Sequence[Part]) -> Tensor:
        """Parts of one file → their mean direction (D,), unit norm, less the means of their modalities."""
        vectors = vectors_of(self.space, parts)
        means = self.means[[MODALITIES.index(part.modality) for part in parts]]
        return F.normalize(F.normalize(vectors - means, dim=-1).mean(0), dim=-1)

    def query(self, terms: Sequence[Term], stdin: Callable[[], bytes], cuts: Cuts = Cuts()) -> Tensor:
        """Terms → the unit vector (D,) that is searched for. Raises InputError, ModelError, UsageError where they leave
        nothing."""
        total = torch.zeros(self.space.dim)
        for term in terms:
            if term.kind == "text":
                parts = [Part("text", term.value)]
            else:
                source = stdin() if term.kind == "stdin" else Path(term.value)
                parts = list(parts_of(self.space, source, "stdin" if term.kind == "stdin" else term.value, cuts))
            total += term.weight * self.direction(parts)
        if total.norm() < CANCELLED:
            raise UsageError("the terms of the query cancel each other", hint="give them other weights")
        return F.normalize(total, dim=-1)

    @torch.inference_mode()
    def top(self, query: Tensor, count: int, modality: str | None = None) -> list[Hit]:
        """The rows nearest to a unit vector (D,), the nearest first."""
        found: list[tuple[float, Shard, int]] = []
        for shard in self.index.shards:
            scores = self._scores(shard, query)
            if modality is not None:
                scores[torch.from_numpy(shard.codes) != MODALITIES.index(modality)] = -torch.inf
            best = scores.topk(min(count, len(scores)))
            rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            found += [(score, shard, number) for score, number in rows if score > -torch.inf]
        found.sort(key=lambda hit: -hit[0])
        return [Hit(round(score, 4), shard.row(number)) for score, shard, number in found[:count]]

    def _scores(self, shard: Shard, query: Tensor) -> Tensor:
        """(N,): of row v of modality m, the cosine of the query and v - mean_m, without a copy of v."""
        ways = torch.stack([query, *self.means], dim=1)  # (D, 1 + M)
        vectors = torch.from_numpy(shard.vectors)
        products = torch.cat([block.float() @ ways for block in vectors.split(BLOCK)])
        codes = torch.from_numpy(shard.codes).long()
        off = (self.means @ query)[codes]
        beside = products.gather(1, 1 + codes[:, None])[:, 0]
        norms = (1 - 2 * beside + self.means.square().sum(1)[codes]).clamp_min(1e-6).sqrt()
        return (products[:, 0] - off) / norms


def find(
    opened: Callable[[], Index],
    space: Space,
    terms: Sequence[Term],
    *,
    top: int,
    modality: str | None = None,
    cuts: Cuts = Cuts(),
    stdin: Callable[[], bytes] = bytes,
) -> list[Hit]:
    """What an index holds that is nearest to a query. opened: opens the index, again where another process changed it
    in the meantime. Raises what `Index.open` and `Searcher.query` raise."""
    payload = cache(stdin)
    for left in reversed(range(TRIES)):
        searcher = Searcher(opened(), space)
        try:
            return searcher.top(searcher.query(terms, payload, cuts), top, modality)
        except FileNotFoundError:
            if not left:
                raise ModelError(f"{searcher.index.folder}: a shard is missing", hint="index the files anew") from None
    raise AssertionError
