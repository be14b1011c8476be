"""Approximate search in large indexes: a graph over the centred vectors of each modality (HNSW, Malkov and Yashunin
2018), viewed from disk, in whole numbers of 8 bits: what it finds is compared anew by the vectors themselves. It needs
usearch: pip install 'mmx[search]'."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.spaces.base import MODALITIES
from mmx.spaces.index import Index
from mmx.spaces.shards import Shard

LARGE = 100_000  # rows, from which a graph is worth it: exact search in fewer takes some 50 ms
STALE = 0.5  # share of a graph's rows that went away, from which it is built anew
KEPT = 60.0  # seconds of work that a kill may cost
RARELY = 20  # times as long as writing it takes, a graph is not written
COVERS, MEANS = "covers.json", "means.npy"
ROW_BITS = 32
EXPANSION = 128  # nodes that are looked at for the neighbours of a new one
# nodes that a search looks at, at least, in so many rows; in more of them, as the square root of how many: of the
# nearest ten, 512 found 0.995 in 150,000 rows, and 0.985 in 300,000
LOOKED, AMONG = 512, 150_000


def usable() -> bool:
    """Whether usearch is installed."""
    return importlib.util.find_spec("usearch") is not None


def looked_at(rows: int, count: int) -> int:
    """How many nodes a search for the nearest `count` of so many rows looks at."""
    return max(LOOKED, round(LOOKED * math.sqrt(rows / AMONG)), 2 * count)


@dataclass(frozen=True)
class Graph:
    """A folder with a graph for each modality. covers: shard → how many of its rows are in it."""

    folder: Path
    covers: dict[str, int]
    viewed: dict[str, Any] = field(default_factory=dict, compare=False)  # by modality, opened when first asked

    @classmethod
    def of(cls, index: Index) -> Graph | None:
        """The graph of an index, if it has one. Raises FileNotFoundError where another process just replaced it."""
        if index.graph is None or not usable():
            return None
        folder = index.folder / index.graph
        return cls(folder, json.loads((folder / COVERS).read_text(encoding="utf8")))

    def near(self, query: Tensor, count: int, modality: str) -> list[tuple[str, int]]:
        """Rows near to a centred query (D,), as (shard, number); some of them may be gone."""
        from usearch.index import Index as Nodes

        path = self.folder / f"{modality}.usearch"
        if not path.exists():
            return []
        if modality not in self.viewed:
            self.viewed[modality] = Nodes.restore(path, view=True)
        nodes = self.viewed[modality]
        nodes.expansion_search = looked_at(len(nodes), count)
        keys = nodes.search(query.numpy(), count).keys.tolist()
        return [(f"{key >> ROW_BITS:06d}", key & ((1 << ROW_BITS) - 1)) for key in keys]

    @property
    def means(self) -> Tensor:
        """(M, D): what was taken off the vectors."""
        return torch.from_numpy(np.load(self.folder / MEANS))


def refreshed(index: Index, means: Tensor, say: Callable[[int, int], None] = lambda done, of: None) -> Index:
    """The index with a graph over all of its rows, where it is large and usearch is there. means (M, D): by modality;
    a graph that goes on keeps those that it has.

    What is done of it is kept now and then, and searched beside the other rows: a call that was killed costs KEPT
    seconds, or what it takes to write the graph some times, and the next one goes on. say: is told how many rows are in
    it, and of how many.
    """
    covers = {shard.name: len(shard) for shard in index.shards}
    old = Graph.of(index)
    if len(index) < LARGE or not usable() or (old is not None and old.covers == covers):
        return index
    graph, kept, pause = _Growing.of(index, old, means), time.monotonic(), KEPT
    for shard in (shard for shard in index.shards if shard.name not in graph.covers):
        if time.monotonic() - kept > pause:
            started = time.monotonic()
            index, kept = graph.kept(index), time.monotonic()
            pause = max(KEPT, RARELY * (kept - started))
        graph.add(shard)
        say(sum(graph.covers.values()), len(index))
    return graph.kept(index)


@dataclass(frozen=True)
class _Growing:
    """A graph in memory. nodes: by modality; covers: as a Graph's; means (M, D)."""

    nodes: dict[str, Any]
    covers: dict[str, int]
    means: Tensor

    @classmethod
    def of(cls, index: Index, old: Graph | None, means: Tensor) -> _Growing:
        """What an index's graph is, less the rows that went; or where that is most of them, nothing yet."""
        there = {shard.name for shard in index.shards}
        gone = {} if old is None else {name: count for name, count in old.covers.items() if name not in there}
        if old is None or sum(gone.values()) > STALE * sum(old.covers.values()):
            return cls({modality: _nodes(index.dim) for modality in MODALITIES}, {}, means)
        nodes = {name: _nodes(index.dim, old.folder / f"{name}.usearch") for name in MODALITIES}
        for name, rows in gone.items():
            for own in nodes.values():
                own.remove(_keys(name, np.arange(rows)))
        return cls(nodes, {name: count for name, count in old.covers.items() if name in there}, old.means)

    def add(self, shard: Shard) -> None:
        """Take in a shard's rows."""
        for code, modality in enumerate(MODALITIES):
            numbers = np.flatnonzero(shard.codes == code)
            if len(numbers):
                vectors = torch.from_numpy(shard.vectors[numbers]).float() - self.means[code]
                self.nodes[modality].add(_keys(shard.name, numbers), F.normalize(vectors, dim=-1).numpy())
        self.covers[shard.name] = len(shard)

    def kept(self, index: Index) -> Index:
        """The index with this graph, on disk."""
        serial = int(Path(index.graph).suffix[1:] or 0) + 1 if index.graph else 0
        name = f"near-{index.made:06d}.{serial}"
        scratch = index.folder / f".{name}.part"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for modality, nodes in self.nodes.items():
            if len(nodes):
                nodes.save(scratch / f"{modality}.usearch")
        np.save(scratch / MEANS, self.means.numpy())
        (scratch / COVERS).write_text(json.dumps(self.covers), encoding="utf8")
        shutil.rmtree(index.folder / name, ignore_errors=True)
        scratch.rename(index.folder / name)
        return index.with_graph(name)


def _nodes(dim: int, path: Path | None = None) -> Any:
    from usearch.index import Index as Nodes

    if path is not None and path.exists():
        return Nodes.restore(path)
    return Nodes(ndim=dim, metric="ip", dtype="i8", expansion_add=EXPANSION)


def _keys(shard: str, numbers: np.ndarray) -> np.ndarray:
    return (np.uint64(int(shard)) << np.uint64(ROW_BITS)) | numbers.astype(np.uint64)
