"""What of an index is nearest to a query: exact search, corrected for the gap between modalities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.decoders.horizon import FAR
from mmx.errors import ModelError
from mmx.spaces.answers import Consulted, Note, far_texts
from mmx.spaces.base import MODALITIES, Space
from mmx.spaces.compass import Compass, known_means
from mmx.spaces.index import TRIES, Index
from mmx.spaces.near import Graph
from mmx.spaces.parts import Cuts
from mmx.spaces.query import Term
from mmx.spaces.question import Answer, Hit, Question
from mmx.spaces.shards import Shard

BLOCK = 1024  # rows that are compared at a time
MORE = 4  # times as many rows are taken from a graph as are wanted, and compared exactly
SAMPLE = 512  # rows of a modality, by which it is known what is usual there
FEW = 16  # rows of a modality; of fewer, the mean is taken to be nearer to nothing


class Searcher(Compass):
    """An index and its space. corrected: take the means of modalities off (the modality gap, Liang et al. 2022) and
    compare scores by how they stand among those of their modality; without both, a query's own modality comes first.
    exact: do without the graph of a large index."""

    def __init__(self, index: Index, space: Space, *, corrected: bool = True, exact: bool = False) -> None:
        index.require(space, searching=True)
        super().__init__(space, means_of(index, space) if corrected else torch.zeros(len(MODALITIES), space.dim))
        self.index, self.corrected = index, corrected
        self.graph = None if exact or not corrected else Graph.of(index)

    @cached_property
    def samples(self) -> list[Tensor]:
        """Of each modality some rows, evenly spread: centred unit vectors (S, D)."""
        return [self._sample(code, self.index.counts[name]) for code, name in enumerate(MODALITIES)]

    def _sample(self, code: int, count: int) -> Tensor:
        step, seen, found = max(1, count // SAMPLE), 0, [torch.zeros(0, self.space.dim)]
        for shard in self.index.shards:
            numbers = np.flatnonzero(shard.codes == code)
            found.append(torch.from_numpy(shard.vectors[numbers[-seen % step :: step]]).float())
            seen += len(numbers)
        return F.normalize(torch.cat(found) - self.means[code], dim=-1)

    def usual(self, query: Tensor) -> Tensor:
        """(M,): the root mean square of a query's scores with each modality; of few rows drawn to that with all."""
        if not self.corrected:
            return torch.ones(len(MODALITIES))
        squares = [(sample @ query).square() for sample in self.samples]
        everything = torch.cat(squares).mean() if len(self.index) else torch.ones(())
        sums = torch.stack([own.sum() for own in squares])
        counts = torch.tensor([len(own) for own in squares])
        return ((sums + FEW * everything) / (counts + FEW)).sqrt().clamp_min(1e-6)

    @torch.inference_mode()
    def top(self, query: Tensor, count: int, modality: str | None = None) -> list[Hit]:
        """The rows nearest to a unit vector (D,), the nearest first."""
        found: list[tuple[float, Shard, int]] = []
        covered, usual = self.graph.covers if self.graph else {}, self.usual(query)
        for shard in self.index.shards:
            if shard.name in covered:
                continue
            codes = torch.from_numpy(shard.codes).long()
            standings = self._scores(shard, slice(None), query) / usual[codes]
            if modality is not None:
                standings[codes != MODALITIES.index(modality)] = -torch.inf
            best = standings.topk(min(count, len(standings)))
            rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            found += [(standing, shard, number) for standing, number in rows if standing > -torch.inf]
        if self.graph:
            near = self._near(self.graph, query, count, (modality,) if modality else MODALITIES)
            found += [(score / float(usual[shard.codes[number]]), shard, number) for score, shard, number in near]
        found.sort(key=lambda hit: -hit[0])
        return [
            Hit(round(standing * float(usual[shard.codes[number]]), 4), shard.row(number), round(standing, 4))
            for standing, shard, number in found[:count]
        ]

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
        products = _products(torch.from_numpy(shard.vectors[rows]), torch.stack([query, *self.means]))
        codes = torch.from_numpy(shard.codes[rows]).long()
        off = (self.means @ query)[codes]
        beside = products.gather(1, 1 + codes[:, None])[:, 0]
        norms = (1 - 2 * beside + self.means.square().sum(1)[codes]).clamp_min(1e-6).sqrt()
        return (products[:, 0] - off) / norms


def _products(vectors: Tensor, ways: Tensor) -> Tensor:
    """Rows of float16 (N, D) and directions (K, D) → products (N, K). One block of float32 that stays in the cache is
    used again and again: new ones cost many times the product."""
    block = torch.empty(min(BLOCK, len(vectors)), vectors.shape[1])
    found = torch.empty(len(vectors), len(ways))
    for part, out in zip(vectors.split(BLOCK), found.split(BLOCK), strict=True):
        out.copy_(F.linear(block[: len(part)].copy_(part), ways))
    return found


def means_of(index: Index, space: Space) -> Tensor:
    """(M, D): the mean of the vectors of each modality, drawn to what the space knows of it."""
    return drawn_means(index, known_means(space))


def drawn_means(index: Index, known: Tensor) -> Tensor:
    """(M, D): the mean of the vectors of each modality; of a modality with few rows it is drawn to what is known of it
    (M, D), or to nothing."""
    counts = torch.tensor([index.counts[modality] for modality in MODALITIES])[:, None]
    return (torch.from_numpy(index.sums).float() + FEW * known) / (counts + FEW)


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


def search(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """What an index holds that is nearest to a query: hits as [score, row, standing], and which texts are far."""
    options = question.options
    hits = find(
        lambda: Index.open(Path(options.index)),
        consulted.space,
        question.terms,
        top=options.top,
        modality=options.modality,
        cuts=Cuts(options.every),
        exact=options.exact,
    )
    far = far_texts(consulted.space, [term.value for term in question.terms if term.kind == "text"])
    for text in far:
        note(f"{text}: {FAR}")
    yield Answer([{"far": far, "hits": [[hit.score, hit.row, hit.standing] for hit in hits]}])
