"""What a cache lacks is computed: items → the rows of their content, in one process or in many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from mmx.data.cache import Cache, content_key
from mmx.data.digests import Digests, stat_of
from mmx.data.items import Item
from mmx.data.sharing import Group
from mmx.errors import InputError

CHUNK = 256  # files that are read and encoded together, and the rows of a shard


class Features(Protocol):
    """A space of the cache: `name` says which, `empty` (0, *suffix) is a row without entries.

    encode: bytes and names → rows (L, *suffix), None for what can't be used.
    """

    name: str
    empty: Tensor

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]: ...


@dataclass
class Space:
    """A cache, and what computes its rows."""

    cache: Cache
    features: Features

    @classmethod
    def of(cls, root: Path, features: Features) -> Space:
        """The space of some features in the cache folder `root`. Raises OutputError."""
        shape = hashlib.sha256(str(tuple(features.empty.shape)).encode()).hexdigest()[:8]
        return cls(Cache(root / f"{features.name}-{shape}"), features)

    def lacks(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Which of some keys (N,) are not here: (N,) bool. 0, no key, never is."""
        asked = np.asarray(keys, np.uint64)
        return (asked == 0) | (self.cache.find(asked) < 0)

    def add(self, keys: Sequence[int], payloads: Sequence[bytes], names: Sequence[str]) -> None:
        """Encode what is not here yet, each content once, and write it as one shard. Raises OutputError."""
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        picks = sorted(i for (key, i), lacks in zip(first.items(), self.lacks(list(first)), strict=True) if lacks)
        if picks:
            values = self.features.encode([payloads[i] for i in picks], [names[i] for i in picks])
            rows = [self.features.empty if value is None else value for value in values]
            self.cache.add([keys[i] for i in picks], rows)


@dataclass
class Resolved:
    """Where items are in a space: rows (N,) int64, -1 for those that can't be used, and the names of these."""

    rows: np.ndarray
    bad: list[str]


def resolve(
    items: Sequence[Item],
    space: Space,
    digests: Digests,
    group: Group | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Resolved:
    """Every item's row, computing those that are missing: each process of a group its share, and then what is still not
    there.

    An item can't be used where it can't be read or encoded, and for no other reason; of many processes all leave out
    the same. Raises InputError where the processes were given different data, OutputError.
    """
    group = group or Group()
    keys, own = np.zeros(len(items), np.uint64), {}
    with ThreadPoolExecutor(4) as pool:
        for number, start in enumerate(range(0, len(items), CHUNK)):
            chunk = [items[i] for i in range(start, min(start + CHUNK, len(items)))]
            found = np.array(digests.known(chunk), np.uint64)
            if group.mine(number) and space.lacks(found).any():
                found = own[start] = _compute(chunk, found, space, digests, pool)
            keys[start : start + CHUNK] = found
            tell(start + len(chunk))
        for computed in group.share(own, space.cache.written):
            for start, found in computed.items():
                keys[start : start + CHUNK] = found
        space.cache.refresh()
        for start in sorted({int(i) // CHUNK * CHUNK for i in np.flatnonzero(space.lacks(keys))} - set(own)):
            chunk = [items[i] for i in range(start, min(start + CHUNK, len(items)))]
            keys[start : start + CHUNK] = _compute(chunk, keys[start : start + CHUNK], space, digests, pool)
    space.cache.refresh()
    return _usable(items, keys, space, group)


def _compute(
    chunk: Sequence[Item], keys: np.ndarray, space: Space, digests: Digests, pool: ThreadPoolExecutor
) -> np.ndarray:
    """Read and encode what a chunk lacks; returns the keys (N,) of all of it, 0 for what can't be read."""
    lacks = space.lacks(keys)
    picks = [chunk[i] for i in np.flatnonzero(lacks)]
    stats = [stat_of(item.path) for item in picks]
    payloads = list(pool.map(_read_or_none, picks))
    found = np.array([0 if payload is None else content_key(payload) for payload in payloads], np.uint64)
    good = [i for i, payload in enumerate(payloads) if payload is not None]
    own = [int(found[i]) for i in good]
    space.add(own, [payloads[i] for i in good], [picks[i].name for i in good])
    digests.learn([picks[i] for i in good], own, [stats[i] for i in good])
    keys = keys.copy()
    keys[lacks] = found
    return keys


def _usable(items: Sequence[Item], keys: np.ndarray, space: Space, group: Group) -> Resolved:
    """The rows of all items that every process of the run can use."""
    rows = space.cache.find(keys)
    here = (keys != 0) & (rows >= 0) & (np.append(space.cache.lengths, 0)[rows] > 0)
    for rank, (count, bits) in enumerate(group.team.share((len(items), np.packbits(here)))):
        if count != len(items):
            raise InputError(
                f"process {rank} of this run was given {count} samples, and process {group.team.rank} {len(items)}",
                hint="each machine needs the same data",
            )
        here &= np.unpackbits(bits, count=count).astype(bool)
    return Resolved(np.where(here, rows, -1), [items[int(i)].name for i in np.flatnonzero(~here)])


def _read_or_none(item: Item) -> bytes | None:
    try:
        return item.read()
    except InputError:
        return None
