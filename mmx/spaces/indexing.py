"""Files → an index: what is new or changed is embedded, what is gone is dropped."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmx.errors import InputError, MmxError
from mmx.media.files import kind_of_file
from mmx.spaces import near
from mmx.spaces.base import Space
from mmx.spaces.compass import known_means
from mmx.spaces.embedding import Embedded, Embedder, File, Key, chunked, embedded
from mmx.spaces.index import Index, writing
from mmx.spaces.parts import Cuts
from mmx.spaces.question import Facts
from mmx.spaces.search import drawn_means
from mmx.spaces.shards import Row, Shard

SHARD = 4096  # rows, at most
FLUSH = 30.0  # seconds of work that a kill may cost
SETTLED = 2_000_000_000  # ns: what changed less than this ago might change again within one tick of the file system


@dataclass
class Indexed:
    """What an update did: how many files it embedded, kept, found elsewhere or dropped, and what it could not read."""

    rows: int = 0
    embedded: int = 0
    kept: int = 0
    moved: int = 0
    dropped: int = 0
    unreadable: list[tuple[str, MmxError]] = field(default_factory=list)


@dataclass
class Known:
    """A file's rows in the index."""

    row: Row
    places: list[tuple[Shard, int]] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.row["sha256"], self.row["every"]


@dataclass
class Plan:
    """What is to be done: files to embed; known rows to be kept under another name or state; paths to drop."""

    new: list[File] = field(default_factory=list)
    again: list[tuple[File, Known]] = field(default_factory=list)
    drop: set[str] = field(default_factory=set)


def update(
    folder: Path,
    space: Space | Facts,
    paths: Sequence[Path],
    cuts: Cuts = Cuts(),
    *,
    say: Callable[[int, int], None] = lambda done, of: None,
    linked: Callable[[int, int], None] = lambda done, of: None,
    by: Embedder | None = None,
) -> Indexed:
    """Bring an index up to date with these files. Files of it that were not named stay, as long as they are there.

    Killed at any moment, it leaves an index, and what is missing in it is at most a shard's work. say: is told how
    many files are done, and of how many; linked: how many rows are in a large index's graph, and of how many. by: what
    embeds files, if it is not the space in this process. Raises UsageError, OutputError, ModelError, but not for a file
    that is unreadable.
    """
    report = Indexed()
    with writing(folder, space) as index:
        known = _known(index)
        plan = _plan(known, paths, cuts, report)
        index = _without_the_old(index, known, plan, report)
        chunks = chunked(plan.new)
        done = by.embedded(chunks) if by else (embedded(space, chunk, cuts) for chunk in chunks)
        index = _embed(index, done, plan.new, report=report, say=say)
        small = [shard for shard in index.shards if len(shard) < SHARD // 2]
        if len(small) > 1:
            index = _merged(index, small)
        report.rows = len(index)
        if not index.made:
            index = index.commit((), 0)  # an empty index is one, too
        if len(index) >= near.LARGE:
            near.refreshed(index, drawn_means(index, by.means() if by else known_means(space)), linked)
    return report


def _known(index: Index) -> dict[str, Known]:
    """The files of an index by path."""
    found: dict[str, Known] = {}
    for shard in index.shards:
        for number, row in enumerate(shard.rows()):
            found.setdefault(row["path"], Known(row)).places.append((shard, number))
    return found


def _plan(known: dict[str, Known], paths: Iterable[Path], cuts: Cuts, report: Indexed) -> Plan:
    plan, wanted = Plan(), {os.path.abspath(path) for path in paths}
    by_key = {entry.key: entry for entry in known.values()}
    for path in sorted(wanted):
        every = cuts.every if kind_of_file(Path(path)) == "video" else 0.0
        entry = known.get(path)
        try:
            if entry and entry.row["state"] == _state(path) and entry.row["every"] == every:
                report.kept += 1
                continue
            file = _looked_at(path, every)
        except OSError as error:
            report.unreadable.append((path, InputError(f"{path}: {error.strerror}")))
            continue
        same = entry if entry and entry.key == file.key else by_key.get(file.key)
        if same is None:
            plan.new.append(file)
        else:
            plan.again.append((file, same))
            report.kept += same is entry
            report.moved += same is not entry
    gone = {path for path in known if path not in wanted and not os.path.lexists(path)}
    report.dropped = len(gone - {same.row["path"] for _, same in plan.again})
    plan.drop = gone | {file.path for file in plan.new} | {file.path for file, _ in plan.again}
    plan.drop |= {path for path, _ in report.unreadable}
    return plan


def _state(path: str) -> list[int]:
    """What changes with a file's content: its size and both times, since programs set the one to what they like."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _looked_at(path: str, every: float) -> File:
    """A file's digest and state. Raises OSError."""
    state = _state(path)
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    settled = time.time_ns() - max(state[1:]) > SETTLED
    return File(path, digest, every, state if settled else None, state[0])


def _without_the_old(index: Index, known: dict[str, Known], plan: Plan, report: Indexed) -> Index:
    """The index without rows of files that are gone or changed, and with what is known of files under new names."""
    old: dict[Shard, set[int]] = defaultdict(set)
    for path in plan.drop & known.keys():
        for shard, number in known[path].places:
            old[shard].add(number)
    rows: list[Row] = []
    vectors: list[np.ndarray] = []
    for shard, numbers in old.items():
        left = [number for number in range(len(shard)) if number not in numbers]
        every = shard.rows()
        rows += [every[number] for number in left]
        vectors += list(shard.vectors[left])
    for file, entry in plan.again:
        for shard, number in entry.places:
            rows.append(file.row(_about(shard.row(number))))
            vectors.append(shard.vectors[number])
    if not old and not rows:
        return index
    return index.changed(list(old), rows, _stacked(vectors, index.dim), SHARD)


def _about(row: Row) -> Row:
    """What in its file a row is."""
    return {name: value for name, value in row.items() if name not in ("path", "sha256", "every", "state")}


def _stacked(vectors: Sequence[np.ndarray], dim: int) -> np.ndarray:
    return np.stack(vectors) if vectors else np.zeros((0, dim), np.float16)


def _embed(
    index: Index,
    done: Iterator[Iterable[Embedded]],
    files: Sequence[File],
    *,
    report: Indexed,
    say: Callable[[int, int], None],
) -> Index:
    """Take in what is embedded of the files, and commit a shard whenever there are enough rows or seconds in it."""
    rows: list[Row] = []
    vectors: list[np.ndarray] = []
    since = time.monotonic()
    with closing(done):
        try:
            for own in (own for chunk in done for own in chunk):
                if own.failed:
                    report.unreadable.append((own.file.path, own.failed))
                    continue
                rows += own.rows
                vectors += own.vectors
                report.embedded += 1
                say(report.embedded + len(report.unreadable), len(files))
                if len(rows) >= SHARD or time.monotonic() - since > FLUSH:
                    index = index.changed((), rows, _stacked(vectors, index.dim), SHARD)
                    rows, vectors, since = [], [], time.monotonic()
        finally:  # Ctrl-C keeps what is done
            if rows:
                index = index.changed((), rows, _stacked(vectors, index.dim), SHARD)
    return index


def _merged(index: Index, small: Sequence[Shard]) -> Index:
    """The index with some shards as few."""
    rows: list[Any] = [row for shard in small for row in shard.rows()]
    vectors = np.concatenate([shard.vectors for shard in small])
    return index.changed(small, rows, vectors, SHARD)
