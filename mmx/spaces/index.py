"""An index on disk: shards of vectors, and one small file that says which of them count.

That file is replaced as a whole, so an index is at any moment what the last finished step made of it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmx.errors import ModelError, OutputError, UsageError
from mmx.media.files import write_atomic
from mmx.spaces.base import MODALITIES, Space
from mmx.spaces.shards import Row, Shard, write_shard

SCHEMA, ABOUT, LOCK = "mmx.index/1", "index.json", "lock"
TRIES = 5  # to open an index that another process is writing


@dataclass(frozen=True)
class Index:
    """Vectors of one space.

    made: how many shards were ever made, from which the next one has its name. graph: the folder of a graph over shards
    that it has or had, by which large indexes are searched.
    """

    folder: Path
    space: str
    fingerprint: str
    dim: int
    shards: tuple[Shard, ...] = ()
    made: int = 0
    graph: str | None = None

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are of each modality."""
        totals = sum((shard.counts for shard in self.shards), np.zeros(len(MODALITIES), int))
        return dict(zip(MODALITIES, totals.tolist(), strict=True))

    @property
    def sums(self) -> np.ndarray:
        """(M, D) float64: the sum of the vectors of each modality."""
        return sum((shard.sums for shard in self.shards), np.zeros((len(MODALITIES), self.dim)))

    def require(self, space: Space, *, searching: bool = False) -> None:
        """Raise ModelError, which names both, unless this is the space of its vectors; or, for searching, one that is
        that with an encoder more."""
        if self.fingerprint not in (space.fingerprint, *(space.extends if searching else ())):
            raise ModelError(
                f"{self.folder} holds vectors of the space {self.space} ({self.fingerprint[:12]}), "
                f"not of {space.name} ({space.fingerprint[:12]})",
                hint="give that space with --space, or index the files anew into another folder",
            )

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Read an index. Raises UsageError where there is none, ModelError where it is damaged."""
        for left in reversed(range(TRIES)):
            try:
                return cls._open(folder)
            except FileNotFoundError:  # a shard went away since the list was read: there is a new list
                if not left:
                    raise ModelError(f"{folder}: a shard is missing", hint="index the files anew") from None
        raise AssertionError

    @classmethod
    def _open(cls, folder: Path) -> Index:
        if not (folder / ABOUT).is_file():
            raise UsageError(f"{folder}: no such index", hint=f"mmx index FOLDER -o {folder}")
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf8"))
            if about["schema"] != SCHEMA:
                raise ModelError(f"{folder} is an index of another version of mmx: {about['schema']}")
            shards = tuple(Shard(folder / name) for name in about["shards"])
            own = {name: about[name] for name in ("space", "fingerprint", "dim", "made", "graph")}
            found = cls(folder, shards=shards, **own)
        except (OSError, ValueError, KeyError, TypeError):
            raise ModelError(f"{folder}: {ABOUT} can't be read", hint="index the files anew") from None
        for shard in shards:
            if shard.vectors.shape != (len(shard.offsets) - 1, found.dim) or len(shard) != len(shard.vectors):
                raise ModelError(f"{shard.folder}: its parts do not fit each other", hint="index the files anew")
        return found

    def commit(self, shards: Sequence[Shard], made: int) -> Index:
        """The same index of other shards; those that no longer count are deleted."""
        return replace(self, shards=tuple(shards), made=made)._committed()

    def with_graph(self, name: str) -> Index:
        """Commit the same index with another graph."""
        return replace(self, graph=name)._committed()

    def _committed(self) -> Index:
        about = {
            "schema": SCHEMA,
            "space": self.space,
            "fingerprint": self.fingerprint,
            "dim": self.dim,
            "made": self.made,
            "graph": self.graph,
            "shards": [shard.name for shard in self.shards],
        }
        write_atomic(self.folder / ABOUT, json.dumps(about, indent=1).encode())
        self.sweep()
        return self

    def changed(self, without: Sequence[Shard], rows: Sequence[Row], vectors: np.ndarray, size: int) -> Index:
        """Commit this index without some shards and with new ones of these rows, `size` in each."""
        shards, made = [shard for shard in self.shards if shard not in without], self.made
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            shards.append(write_shard(self.folder / f"{made:06d}", rows[part], vectors[part]))
            made += 1
        return self.commit(shards, made)

    def sweep(self) -> None:
        """Delete what a killed process left behind, and shards that no longer count."""
        known = {ABOUT, LOCK, self.graph, *(shard.name for shard in self.shards)}
        for path in self.folder.iterdir():
            if path.name not in known and is_ours(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether what lies in an index's folder is a part of an index, finished or not."""
    name = path.name
    number = name.lstrip(".").removeprefix("near-").partition(".")[0]
    return name in (ABOUT, LOCK) or name.startswith(f".{ABOUT}.") or number.isdigit()


@contextmanager
def writing(folder: Path, space: Space) -> Iterator[Index]:
    """The index in a folder, or a new one there, for the one process that writes it. Raises UsageError, OutputError for
    a folder that is something else or is being written, ModelError for an index of another space."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not all(map(is_ours, folder.iterdir())):
            raise UsageError(f"{folder} is a folder of something else", hint="give a new one")
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"{folder}: can't write here: {error.strerror}") from None
    try:
        _lock(lock, folder)
        new = Index(folder, space.name, space.fingerprint, space.dim)
        index = Index.open(folder) if (folder / ABOUT).exists() else new
        index.require(space)
        index.sweep()
        yield index
    finally:
        os.close(lock)


def _lock(file: int, folder: Path) -> None:
    """Hold a lock that ends with this process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: two writers at once are up to the user
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise OutputError(f"{folder}: another process is writing this index", hint="wait until it is done") from None
