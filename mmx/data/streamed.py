"""Shards behind URLs: each is read once from its start to its end, what the frozen models make of it goes into the
cache, and an index of its samples beside it. The shards themselves are kept nowhere, so the disk need not hold them;
and since training draws from the cache, it draws from all of them at once, which a shuffle over a buffer would not.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mmx.data.cache import content_key
from mmx.data.fill import Space
from mmx.data.items import Item
from mmx.data.manifest import Candidate, Manifest, joined
from mmx.data.shards import Sample, identity, shown, stream
from mmx.data.sharing import Group
from mmx.errors import NetworkError
from mmx.media.files import write_atomic
from mmx.tasks import Task

T = TypeVar("T")
SAMPLES, BYTES = 256, 64 << 20  # of one chunk at most; two are held at a time
KEPT = ("split", "weight", "label")  # of the metadata, besides what pairs


def settle(manifest: Manifest, spaces: Sequence[Space], group: Group, *, quiet: bool) -> None:
    """Read what is not in the cache yet, each process of a group its share of the shards, and fill the manifest.

    spaces: the sources' and the targets'. Raises NetworkError, InputError, OutputError.
    """
    task, remote, folder = manifest.task, manifest.remote, group.root / "streams"
    with ThreadPoolExecutor(16) as pool:  # each waits for the other side to answer
        indices = list(pool.map(lambda url: _index(url, task, folder, quiet), remote))
    written = []
    for number, (url, index) in enumerate(zip(remote, indices, strict=True)):
        if group.mine(number) and not _whole(index, spaces):
            _store(url, index, task, spaces)
            written.append(index)
        if not quiet:
            print(f"{shown(url)}: in the cache ({number + 1} of {len(remote)} shards)", file=sys.stderr, flush=True)
    group.share(None, [*written, *(path for space in spaces for path in space.cache.written)])
    _refresh(spaces)
    for number, (url, index) in enumerate(zip(remote, indices, strict=True)):
        if not group.mine(number) and not _whole(index, spaces):  # what another was to read, and is not here
            _store(url, index, task, spaces)
    _refresh(spaces)
    name = shown(remote[0]) + (f" and {len(remote) - 1} more" if len(remote) > 1 else "")
    found = joined((row for index in indices for row in _rows(index)), task, name)
    manifest.sources, manifest.targets, manifest.direct = found.sources, found.targets, found.direct
    manifest.label_names, manifest.key = found.label_names, found.key


def _refresh(spaces: Sequence[Space]) -> None:
    for space in spaces:
        space.cache.refresh()


def _store(url: str, index: Path, task: Task, spaces: Sequence[Space]) -> None:
    """Stream a shard into the cache, and then write its index."""
    lines = [json.dumps(row) for row in _read(url, task, spaces)]
    write_atomic(index, "".join(f"{line}\n" for line in lines).encode())


def _index(url: str, task: Task, folder: Path, quiet: bool) -> Path:
    """Where the index of a shard is or will be. Of one that can't be reached, where it was read before, the last."""
    own = f"{shown(url)}\n{task.source.modality} {task.target.modality} {task.keys}"
    name = _digest(own)
    try:
        return folder / f"{name}-{_digest(identity(url))}.jsonl"
    except NetworkError:
        known = sorted(folder.glob(f"{name}-*.jsonl"), key=os.path.getmtime)
        if not known:
            raise
    if not quiet:
        print(f"{shown(url)}: can't be reached; going on with what was read of it before", file=sys.stderr, flush=True)
    return known[-1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _read(url: str, task: Task, spaces: Sequence[Space]) -> Iterator[dict[str, Any]]:
    """Stream a shard, compute, and tell what it holds: a sample's name, the keys of its contents, its metadata."""
    kept = (*KEPT, *task.keys)
    for chunk in _ahead(_chunks(stream(url), task)):
        keys = []
        for side, space in enumerate(spaces):
            payloads = [both[side] for _, both, _ in chunk]
            own = [None if payload is None else content_key(payload) for payload in payloads]
            here = [k for k, key in enumerate(own) if key is not None]
            space.add([own[k] for k in here], [payloads[k] for k in here], [chunk[k][0] for k in here])
            keys.append(own)
        for (name, _, meta), source, target in zip(chunk, *keys, strict=True):
            yield {
                "key": name,
                "source": source,
                "target": target,
                "meta": {key: meta[key] for key in kept if key in meta},
            }


def _chunks(samples: Iterable[Sample[bytes]], task: Task) -> Iterator[list]:
    """Samples (name, (source, target), metadata) in lists that fit into memory."""
    chunk, size = [], 0
    for sample in samples:
        both = (sample.of(task.source.modality), sample.of(task.target.modality))
        if both == (None, None):
            continue
        chunk.append((sample.key, both, sample.meta))
        size += sum(len(payload) for payload in both if payload is not None)
        if len(chunk) == SAMPLES or size > BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same, the next one being read while the last is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _lines(index: Path) -> Iterator[dict[str, Any]]:
    with index.open(encoding="utf8") as file:
        yield from map(json.loads, file)


def _whole(index: Path, spaces: Sequence[Space]) -> bool:
    """Whether a shard was read before, and all of it is in these spaces."""
    if not index.exists():
        return False
    rows = list(_lines(index))
    keys = ([row[side] for row in rows if row[side] is not None] for side in ("source", "target"))
    return not any(space.lacks(own).any() for space, own in zip(spaces, keys, strict=True))


def _rows(index: Path) -> Iterator[Candidate]:
    for row in _lines(index):
        both = [None if row[s] is None else Item(row["key"], "", key=row[s]) for s in ("source", "target")]
        yield Candidate(row["key"], (both[0], both[1]), row["meta"])
