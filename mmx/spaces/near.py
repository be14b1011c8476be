"""Approximate search in large indexes: a graph over the centred vectors of each modality (HNSW, Malkov and Yashunin
2018), viewed from disk. It needs usearch: pip install 'mmx[search]'."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterable
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
COVERS, MEANS = "covers.json", "means.npy"
ROW_BITS = 32
EXPANSION = 128  # nodes that are looked at for the neighbours of a new one
LOOKED = 512  # nodes that a search looks at, at least: in 150,000 rows 128 found 0.82 of the nearest ten, 512 all


def usable() -> bool:
    """Whether usearch is installed."""
    return importlib.util.find_spec("usearch") is not None


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
        nodes.expansion_search = max(LOOKED, 2 * count)
        keys = nodes.search(query.numpy(), count).keys.tolist()
        return [(f"{key >> ROW_BITS:06d}", key & ((1 << ROW_BITS) - 1)) for key in keys]

    @property
    def means(self) -> Tensor:
        """(M, D): what was taken off the vectors."""
        return torch.from_numpy(np.load(self.folder / MEANS))


def refreshed(index: Index, means: Tensor) -> Index:
    """The index with a graph over all of its rows, where it is large and usearch is there. means (M, D): by modality;
    a graph that goes on keeps those that it has."""
    covers = {shard.name: len(shard) for shard in index.shards}
    old = Graph.of(index)
    if len(index) < LARGE or not usable() or (old is not None and old.covers == covers):
        return index
    gone = {} if old is None else {name: n for name, n in old.covers.items() if name not in covers}
    if old is not None and sum(gone.values()) > STALE * sum(old.covers.values()):
        old, gone = None, {}
    means = means if old is None else old.means
    scratch = index.folder / f".near-{index.made:06d}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    new = [shard for shard in index.shards if old is None or shard.name not in old.covers]
    for code, modality in enumerate(MODALITIES):
        nodes = _nodes(index.dim, None if old is None else old.folder / f"{modality}.usearch")
        for name, rows in gone.items():
            nodes.remove(_keys(name, np.arange(rows)))
        for keys, vectors in _rows(new, code, means[code]):
            nodes.add(keys, vectors)
        if len(nodes):
            nodes.save(scratch / f"{modality}.usearch")
    np.save(scratch / MEANS, means.numpy())
    (scratch / COVERS).write_text(json.dumps(covers), encoding="utf8")
    name = f"near-{index.made:06d}"
    shutil.rmtree(index.folder / name, ignore_errors=True)
    scratch.rename(index.folder / name)
    return index.with_graph(name)


def _nodes(dim: int, path: Path | None) -> Any:
    from usearch.index import Index as Nodes

    if path is not None and path.exists():
        return Nodes.restore(path)
    return Nodes(ndim=dim, metric="ip", dtype="f16", expansion_add=EXPANSION)


def _keys(shard: str, numbers: np.ndarray) -> np.ndarray:
    return (np.uint64(int(shard)) << np.uint64(ROW_BITS)) | numbers.astype(np.uint64)


def _rows(shards: Iterable[Shard], code: int, mean: Tensor) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The rows of one modality, shard by shard: keys (n,) and centred unit vectors (n, D)."""
    for shard in shards:
        numbers = np.flatnonzero(shard.codes == code)
        if len(numbers):
            vectors = torch.from_numpy(shard.vectors[numbers]).float() - mean
            yield _keys(shard.name, numbers), F.normalize(vectors, dim=-1).numpy()
