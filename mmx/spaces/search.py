"""What of an index is nearest to a query: exact search, corrected for the gap between modalities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mmx.errors import ModelError
from mmx.spaces.base import MODALITIES, Space
from mmx.spaces.compass import Compass, known_means
from mmx.spaces.index import TRIES, Index
from mmx.spaces.near import Graph
from mmx.spaces.parts import Cuts
from mmx.spaces.query import Term
from mmx.spaces.shards import Row, Shard

BLOCK = 4096  # rows that are compared at a time
MORE = 4  # times as many rows are taken from a graph as are wanted, and compared exactly
FEW = 16  # rows of a modality; of fewer, the mean is taken to be nearer to nothing


@dataclass(frozen=True)
class Hit:
    """A row of the index, and its score: the cosine with the query, both less the means of their modalities."""

    score: float
    row: Row


class Searcher(Compass):
    """An index and its space. centred: take the means of modalities off, without which a query's own modality comes
    first (the modality gap, Liang et al. 2022)."""

    def __init__(self, index: Index, space: Space, *, centred: bool = True, exact: bool = False) -> None:
        index.require(space)
        super().__init__(space, means_of(index, space) if centred else torch.zeros(len(MODALITIES), space.dim))
        self.index = index
        self.graph = None if exact or not centred else Graph.of(index)

    @torch.inference_mode()
    def top(self, query: Tensor, count: int, modality: str | None = None) -> list[Hit]:
        """The rows nearest to a unit vector (D,), the nearest first."""
        found: list[tuple[float, Shard, int]] = []
        covered = self.graph.covers if self.graph else {}
        for shard in self.index.shards:
            if shard.name in covered:
                continue
            scores = self._scores(shard, slice(None), query)
            if modality is not None:
                scores[torch.from_numpy(shard.codes) != MODALITIES.index(modality)] = -torch.inf
            best = scores.topk(min(count, len(scores)))
            rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            found += [(score, shard, number) for score, number in rows if score > -torch.inf]
        if self.graph:
            found += self._near(self.graph, query, count, (modality,) if modality else MODALITIES)
        found.sort(key=lambda hit: -hit[0])
        return [Hit(round(score, 4), shard.row(number)) for score, shard, number in found[:count]]

    def _near(self, graph: Graph, query: Tensor, count: int, wanted: Sequence[str]) -> list[tuple[float, Shard, int]]:
        """What a graph says is nearest, with its scores."""
        shards = {shard.name: shard for shard in self.index.shards}
        numbers: dict[str, list[int]] = defaultdict(list)
        for modality in wanted:
            for name, number in graph.near(query, MORE * count, modality):
                if name in shards:
                    numbers[name].append(number)
        return [
            (score, shards[name], number)
            for name, own in numbers.items()
            for score, number in zip(self._scores(shards[name], own, query).tolist(), own, strict=True)
        ]

    def _scores(self, shard: Shard, rows: slice | list[int], query: Tensor) -> Tensor:
        """(N,): of row v of modality m, the cosine of the query and v - mean_m, without a copy of v."""
        ways = torch.stack([query, *self.means], dim=1)  # (D, 1 + M)
        vectors = torch.from_numpy(shard.vectors[rows])
        products = torch.cat([block.float() @ ways for block in vectors.split(BLOCK)])
        codes = torch.from_numpy(shard.codes[rows]).long()
        off = (self.means @ query)[codes]
        beside = products.gather(1, 1 + codes[:, None])[:, 0]
        norms = (1 - 2 * beside + self.means.square().sum(1)[codes]).clamp_min(1e-6).sqrt()
        return (products[:, 0] - off) / norms


def means_of(index: Index, space: Space) -> Tensor:
    """(M, D): the mean of the vectors of each modality; of a modality with few rows it is drawn to a mean of what the
    space knows, or to nothing."""
    counts = torch.tensor([index.counts[modality] for modality in MODALITIES])[:, None]
    return (torch.from_numpy(index.sums).float() + FEW * known_means(space)) / (counts + FEW)


def find(
    opened: Callable[[], Index],
    space: Space,
    terms: Sequence[Term],
    *,
    top: int,
    modality: str | None = None,
    cuts: Cuts = Cuts(),
    stdin: Callable[[], bytes] = bytes,
    exact: bool = False,
) -> list[Hit]:
    """What an index holds that is nearest to a query.

    opened: opens the index, again where another process changed it in the meantime. exact: do without the graph of a
    large index. Raises what `Index.open` and `Searcher.query` raise.
    """
    payload = cache(stdin)
    for left in reversed(range(TRIES)):
        index = opened()
        try:
            searcher = Searcher(index, space, exact=exact)
            return searcher.top(searcher.query(terms, payload, cuts), top, modality)
        except FileNotFoundError:
            if not left:
                raise ModelError(f"{index.folder}: a shard is missing", hint="index the files anew") from None
    raise AssertionError
