"""What a frozen model makes of a file, computed once: a content-addressed cache on disk, read row by row.

A row's key is the file's content; a space is one way to compute (which model, which features). A space is a folder of safetensors
shards. A shard is written beside and renamed into place, so a kill loses at most the shard in work; its name follows from its keys, so
two processes that compute the same write the same file. Rows are read with pread: memory does not grow with the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from mmx.errors import InputError
from mmx.media.files import write_atomic

OPEN = 128  # shards open at once; many systems allow a process 1,024 files, some 256
CHUNK = 256  # files that are read and encoded together, and the rows of a shard
DTYPES = {"F16": torch.float16, "F32": torch.float32, "I16": torch.int16}


@dataclass(frozen=True)
class Item:
    """One file, or one member of a tar: name is for people; offset and size say where its bytes are.

    Of what was streamed there is only the key of its bytes, which are in the cache.
    """

    name: str
    path: str
    offset: int = 0
    size: int = -1  # -1: to the end
    key: int = 0  # 0: not known yet

    def read(self) -> bytes:
        """Its bytes. Raises InputError, also where there are fewer than there should be."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from None
        if len(data) < self.size:
            raise InputError(f"{self.name}: {self.path} ends before it")
        return data


def key_of(data: bytes) -> int:
    """The first 64 bits of the sha256."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


NOTHING = key_of(b"")
Stat = tuple[int, int]  # size in bytes, time of change in ns


class Digests:
    """Keys of files by path, size and time of change, so that a file that did not change is not read again. Safe between processes."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / "digests.sqlite").touch()  # by itself SQLite gives the group no right to write, whatever the umask
        self.base = sqlite3.connect(root / "digests.sqlite", timeout=60, check_same_thread=False)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute(
            "CREATE TABLE IF NOT EXISTS seen (path TEXT, offset INT, size INT, changed INT, key INT, PRIMARY KEY (path, offset))"
        )

    def known(self, items: Sequence[Item]) -> list[int | None]:
        """The key of each item, where it is known and the file did not change."""
        stats: dict[str, Stat | None] = {}
        found = []
        for item in items:
            if item.key:
                found.append(item.key)
                continue
            if item.path not in stats:
                stats[item.path] = stat_of(item.path)
            row = self.base.execute(
                "SELECT size, changed, key FROM seen WHERE path = ? AND offset = ?",
                (os.path.abspath(item.path), item.offset),
            ).fetchone()
            key = row[2] & 0xFFFF_FFFF_FFFF_FFFF if row and row[:2] == stats[item.path] else None
            if key == NOTHING and (row[0] if item.size < 0 else item.size):
                key = None  # earlier versions learned this of files that they could not read
            found.append(key)
        return found

    def learn(self, items: Sequence[Item], keys: Sequence[int], stats: Sequence[Stat | None]) -> None:
        """Remember the keys of items. stats: as they were before the items were read; one that changed since is not learned."""
        rows = []
        for item, key, stat in zip(items, keys, stats, strict=True):
            if stat is not None and stat == stat_of(item.path):
                rows.append(
                    (os.path.abspath(item.path), item.offset, *stat, struct.unpack("<q", struct.pack("<Q", key))[0])
                )
        with self.base:
            self.base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)


def stat_of(path: str) -> Stat | None:
    """What tells whether a file changed; None where it can't be asked."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class _Open:
    """Files to read from, of which the last so many are kept open: a space has more shards than a process may have open files."""

    def __init__(self, limit: int = OPEN) -> None:
        self.limit, self.lock = limit, Lock()
        self.files: OrderedDict[Path, int] = OrderedDict()

    def pread(self, path: Path, count: int, offset: int) -> bytes:
        """`count` bytes from `offset` on."""
        with self.lock:
            if path not in self.files:
                self.files[path] = os.open(path, os.O_RDONLY)
                if len(self.files) > self.limit:
                    os.close(self.files.popitem(last=False)[1])
            self.files.move_to_end(path)
            return os.pread(self.files[path], count, offset)


_open = _Open()


class _Shard:
    """One file of a space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        length = struct.unpack("<Q", _open.pread(path, 8, 0))[0]
        header = json.loads(_open.pread(path, length, 8))
        self.start = 8 + length

        def whole(name: str) -> np.ndarray:
            low, high = header[name]["data_offsets"]
            return np.frombuffer(_open.pread(path, high - low, self.start + low), np.int64)

        self.keys, ends = whole("keys").view(np.uint64), whole("ends")
        self.starts = np.concatenate(([0], ends[:-1]))
        self.lengths = ends - self.starts
        data = header["data"]
        self.dtype, self.suffix = DTYPES[data["dtype"]], tuple(data["shape"][1:])
        self.offset = self.start + data["data_offsets"][0]
        self.row = int(np.prod(self.suffix, dtype=np.int64)) * self.dtype.itemsize

    def read(self, row: int, start: int, count: int) -> Tensor:
        count = min(count, int(self.lengths[row]) - start)
        raw = _open.pread(self.path, count * self.row, self.offset + (int(self.starts[row]) + start) * self.row)
        return torch.frombuffer(bytearray(raw), dtype=self.dtype).view(count, *self.suffix)


class Cache:
    """One space. A row is a tensor (L, *suffix), L its own; an empty row says that the file can't be used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.shards: list[_Shard] = []
        self._names: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that were written since, by this process or another."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._names:
                self._names.add(path.name)
                self.shards.append(_Shard(path))
        sizes = [len(shard.keys) for shard in self.shards]
        self._firsts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        keys = np.concatenate([shard.keys for shard in self.shards]) if self.shards else np.zeros(0, np.uint64)
        self._keys = keys
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        self.lengths = np.concatenate([s.lengths for s in self.shards]) if self.shards else np.zeros(0, np.int64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Keys (N,) uint64 → row numbers (N,), -1 where a key is not here."""
        if not len(self._sorted):
            return np.full(len(keys), -1, np.int64)
        place = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1)

    def keys_of(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `find`."""
        return self._keys[rows]

    def read(self, row: int, start: int = 0, count: int = 1 << 62) -> Tensor:
        """A row, or `count` entries of it from `start` on."""
        shard = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return self.shards[shard].read(row - int(self._firsts[shard]), start, count)

    def rows(self, rows: Sequence[int]) -> Tensor:
        """Rows of one length, stacked (N, L, *suffix)."""
        return torch.stack([self.read(int(row)) for row in rows])

    def add(self, keys: Sequence[int], values: Sequence[Tensor]) -> None:
        """Write rows as one shard. values: tensors (L, *suffix) of one dtype, float16, float32 or int16."""
        ends = np.cumsum([len(value) for value in values], dtype=np.int64)
        tensors = {
            "keys": torch.from_numpy(np.array(keys, np.uint64).view(np.int64)),
            "ends": torch.from_numpy(ends),
            "data": torch.cat(list(values)).contiguous(),
        }
        name = hashlib.sha256(np.array(sorted(keys), np.uint64).tobytes()).hexdigest()[:24]
        # not save_file: it gives its files the mode 0600, and others may want to read them
        write_atomic(self.folder / f"{name}.safetensors", save(tensors))


@dataclass
class Resolved:
    """Where items are in a space: rows (N,) int64, -1 for those that can't be used, and the names of these with the reason."""

    rows: np.ndarray
    bad: list[str]


def resolve(
    items: Iterable[Item],
    cache: Cache,
    digests: Digests,
    encode: Callable[[list[bytes], list[str]], list[Tensor | None]],
    empty: Tensor,
    *,
    rank: int = 0,
    world: int = 1,
    wait: Callable[[], None] = lambda: None,
    tell: Callable[[int], None] = lambda done: None,
) -> Resolved:
    """Every item's row, computing those that are missing; of `world` processes each computes its share of the chunks.

    encode: bytes and names → tensors (L, *suffix), None for what can't be used. empty: a tensor (0, *suffix). wait: a barrier.
    """
    keys, bad, done = [], [], 0
    with ThreadPoolExecutor(4) as pool:
        for number, chunk in enumerate(_chunks(items)):
            known = digests.known(chunk)
            fresh = [k is None or int(cache.find(np.array([k], np.uint64))[0]) < 0 for k in known]
            if any(fresh) and number % world == rank:
                known = _compute(chunk, known, fresh, cache, digests, encode, empty, pool)
            keys += known
            done += len(chunk)
            tell(done)
    wait()
    if any(key is None for key in keys):  # another process has computed them by now
        keys = [key for chunk in _chunks(items) for key in digests.known(chunk)]
    cache.refresh()
    rows = cache.find(np.array([key or 0 for key in keys], np.uint64))
    rows = np.where((rows >= 0) & (np.append(cache.lengths, 0)[rows] > 0), rows, -1)
    for chunk_start, chunk in zip(range(0, len(rows), CHUNK), _chunks(items), strict=True):
        bad += [item.name for item, row in zip(chunk, rows[chunk_start:], strict=False) if row < 0]
    return Resolved(rows, bad)


def _compute(chunk, known, fresh, cache, digests, encode, empty, pool) -> list[int]:
    """Read and encode what is fresh of a chunk; returns the keys of all of it, 0 for what can't be read."""
    picks = [i for i, is_fresh in enumerate(fresh) if is_fresh]
    stats = [stat_of(chunk[i].path) for i in picks]
    payloads = list(pool.map(_read_or_none, [chunk[i] for i in picks]))
    keys = [0 if is_fresh else key for key, is_fresh in zip(known, fresh, strict=True)]
    good = [(i, payload, stat) for i, payload, stat in zip(picks, payloads, stats, strict=True) if payload is not None]
    for i, payload, _ in good:
        keys[i] = key_of(payload)
    own, read = [keys[i] for i, _, _ in good], [payload for _, payload, _ in good]
    add_missing(own, read, [chunk[i].name for i, _, _ in good], cache, encode, empty)
    digests.learn([chunk[i] for i, _, _ in good], own, [stat for _, _, stat in good])
    return keys


def add_missing(
    keys: Sequence[int],
    payloads: Sequence[bytes],
    names: Sequence[str],
    cache: Cache,
    encode: Callable[[list[bytes], list[str]], list[Tensor | None]],
    empty: Tensor,
) -> None:
    """Encode what the cache does not hold yet, each content once, and write it as one shard."""
    usable, seen = [], set()
    for i, key in enumerate(keys):
        if key not in seen and int(cache.find(np.array([key], np.uint64))[0]) < 0:
            seen.add(key)
            usable.append(i)
    if usable:
        values = encode([payloads[i] for i in usable], [names[i] for i in usable])
        cache.add([keys[i] for i in usable], [empty if value is None else value for value in values])


def _read_or_none(item: Item) -> bytes | None:
    try:
        return item.read()
    except InputError:
        return None


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
