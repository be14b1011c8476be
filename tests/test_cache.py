"""The cache that many runs and many users share: what it learns, and who may read it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import fsspec
import pytest
import torch

import mmx.data.fill
import mmx.data.sharing
import mmx.data.streamed
from mmx.data.digests import Digests
from mmx.data.fill import Space
from mmx.data.items import Item
from mmx.data.manifest import read_manifest
from mmx.data.pairs import load_pairs
from mmx.data.shards import stream
from mmx.data.sharing import Group
from mmx.errors import InputError, OutputError
from tests.conftest import ROOT
from tests.small_data import EMPTY, Bytes, Encoder, filled, pair_folder, png, wav, write, write_shard


def test_a_failed_read_is_not_learned(tmp_path: Path, monkeypatch) -> None:
    """A file that can't be read now (a network that is away, a right that lacks) is bad in this run, and in this run
    only.
    """
    items, encode = write(tmp_path / "files", 6), Encoder()
    whole = Item.read

    def fails(self: Item) -> bytes:
        return whole(Item(self.name, str(tmp_path / "away"))) if self.name == "3" else whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(Item, "read", fails)
        found, _ = filled(items, tmp_path, encode)
    assert found.bad == ["3"] and encode.calls == 5
    found, _ = filled(items, tmp_path, encode)
    assert found.bad == [] and encode.calls == 6


def test_a_member_of_a_tar_that_breaks_off_is_not_read_in_part(tmp_path: Path) -> None:
    """The first bytes of a sample are not the sample: a shard that is still being copied."""
    (tmp_path / "a.tar").write_bytes(bytes([2, 2, 2, 3]))
    items, encode = [Item("x", str(tmp_path / "a.tar"), 0, 2), Item("y", str(tmp_path / "a.tar"), 2, 4)], Encoder()
    found, _ = filled(items, tmp_path, encode)
    assert found.bad == ["y"] and encode.calls == 1


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch) -> None:
    items, encode, whole = write(tmp_path / "files", 3), Encoder(), Item.read

    def changes(self: Item) -> bytes:
        data = whole(self)
        Path(self.path).write_bytes(data + bytes(9))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Item, "read", changes)
        filled(items, tmp_path, encode)
    assert Digests(tmp_path).known(items) == [0] * 3


def test_what_an_earlier_version_poisoned_is_read_again(tmp_path: Path) -> None:
    """It wrote down the key of no bytes beside a file's real size, and an unusable row for it."""
    items, digests, encode = write(tmp_path / "files", 3), Digests(tmp_path), Encoder()
    (tmp_path / "files" / "2.bin").write_bytes(b"")  # this one is really empty
    nothing = 0xE3B0C44298FC1C14
    key = int.from_bytes(nothing.to_bytes(8, "big"), "little")
    signed = key - (1 << 64) if key >> 63 else key
    with digests.base:
        for item in items[1:]:
            stat = os.stat(item.path)
            row = (item.path, 0, stat.st_size, stat.st_mtime_ns, signed)
            digests.base.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", row)
    Space.of(tmp_path, encode).cache.add([key], [EMPTY])
    found, _ = filled(items, tmp_path, encode)
    assert found.bad == ["2"] and encode.calls == 2


def test_a_shared_cache_can_be_read_and_written_by_the_group(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        root = tmp_path / "shared"
        _, cache = filled(write(tmp_path / "files", 3), root, Encoder())
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in root.rglob("*") if path.is_file()}
    assert len(modes) >= 2 and set(modes.values()) == {"0o664"}, modes
    assert all(path.stat().st_mode & 0o070 == 0o070 for path in (root, cache.folder))
    assert torch.equal(cache.read(0), torch.full((1, 2), 1.0))


class Threads:
    """The processes of a run, each a thread of this one."""

    def __init__(self, world: int) -> None:
        self.barrier, self.told = Barrier(world), {}

    def run(self, work: Callable[[Member], object]) -> list:
        """What each gives."""
        world = self.barrier.parties
        with ThreadPoolExecutor(world) as pool:
            return list(pool.map(work, [Member(rank, world, self) for rank in range(world)]))


class Member:
    """One of them, as `Team` is."""

    def __init__(self, rank: int, world: int, threads: Threads) -> None:
        self.rank, self.world, self.threads, self.leads = rank, world, threads, rank == 0

    def share(self, value: object) -> list:
        self.threads.barrier.wait(60)
        self.threads.told[self.rank] = value
        self.threads.barrier.wait(60)
        return [self.threads.told[rank] for rank in range(self.world)]


def test_each_group_that_sees_one_folder_fills_it_by_itself(tmp_path: Path, monkeypatch) -> None:
    """Two processes on one machine and one on another, whose disks are their own: nothing is bad, and nothing is done
    twice on a disk.
    """
    monkeypatch.setattr(mmx.data.fill, "CHUNK", 2)
    items, encoders = write(tmp_path / "files", 7), [Encoder() for _ in range(3)]

    def work(member: Member) -> tuple[tuple[int, ...], list[str], list[float]]:
        root = tmp_path / ("there" if member.rank == 1 else "here")
        root.mkdir(exist_ok=True)
        group = Group.of(root, member)
        found, cache = filled(items, root, encoders[member.rank], group)
        return group.ranks, found.bad, [float(cache.read(int(row))[0, 0]) for row in found.rows]

    values = [float(number + 1) for number in range(7)]
    assert Threads(3).run(work) == [((0, 2), [], values), ((1,), [], values), ((0, 2), [], values)]
    calls = [encoder.calls for encoder in encoders]
    assert calls[1] == 7 and calls[0] + calls[2] == 7 and min(calls) > 0
    assert not list(tmp_path.rglob(".seen-*"))


def test_streamed_shards_are_read_once_for_each_folder(tmp_path: Path, monkeypatch) -> None:
    """By processes that share one, each its part; by processes that do not, all of them."""
    served = fsspec.filesystem("memory")
    for number in range(4):
        samples = {f"s{number}{k}": {"wav": wav(300 + k), "png": png(4 * number + k)} for k in range(3)}
        write_shard(tmp_path / "a.tar", samples)
        served.pipe(f"/mmx/a-{number}.tar", (tmp_path / "a.tar").read_bytes())
    read: list[str] = []

    def counted(url: str):
        read.append(url)
        yield from stream(url)

    monkeypatch.setattr(mmx.data.streamed, "stream", counted)
    for name, times in (("one", 1), ("own{}", 2)):
        read.clear()

        def work(member: Member, name: str = name) -> int:
            manifest = read_manifest("memory://mmx/a-{0..3}.tar", "sound2img", stream=True)
            cache = tmp_path / name.format(member.rank)
            cache.mkdir(exist_ok=True)
            loaded = load_pairs(manifest, Bytes(), Bytes(), member, cache=cache, quiet=True)
            return sum(len(pairs.sources) for pairs in (loaded.train, loaded.val) if pairs)

        assert Threads(2).run(work) == [12, 12]
        assert sorted(read) == sorted([f"memory://mmx/a-{number}.tar" for number in range(4)] * times)


def test_what_another_computed_where_it_cannot_be_seen_is_computed_here(tmp_path: Path, monkeypatch) -> None:
    """Whatever the reason: a row that is not here is no reason to leave a sample out."""
    monkeypatch.setattr(mmx.data.fill, "CHUNK", 2)
    monkeypatch.setattr(mmx.data.sharing, "PATIENCE", 0.0)
    items, encoders = write(tmp_path / "files", 7), [Encoder() for _ in range(2)]

    def work(member: Member) -> list[str]:
        root = tmp_path / f"own{member.rank}"
        return filled(items, root, encoders[member.rank], Group(root, member, (0, 1)))[0].bad

    assert Threads(2).run(work) == [[], []]
    assert [encoder.calls for encoder in encoders] == [7, 7]


def test_all_processes_leave_out_the_same_samples(tmp_path: Path) -> None:
    """Otherwise they would draw different pairs, and train on nonsense."""
    items = write(tmp_path / "files", 4)

    def work(member: Member) -> list[str]:
        root, own = tmp_path / f"own{member.rank}", list(items)
        own[member.rank] = Item(items[member.rank].name, str(tmp_path / "gone"))
        root.mkdir()
        return filled(own, root, Encoder(), Group.of(root, member))[0].bad

    assert Threads(2).run(work) == [["0", "1"]] * 2

    def fewer(member: Member) -> None:
        filled(items[member.rank :], tmp_path / "own0", Encoder(), Group(tmp_path, member, (member.rank,)))

    with pytest.raises(InputError, match="was given"):
        Threads(2).run(fewer)


def test_processes_with_different_cache_folders_load_the_same_pairs(two_processes, tmp_path: Path) -> None:
    """For real: two processes over gloo, each with a disk of its own."""
    data = pair_folder(tmp_path / "pairs", 30)
    script = tmp_path / "load.py"
    script.write_text(
        f"""
from pathlib import Path
import mmx.data.fill
mmx.data.fill.CHUNK = 8
from mmx.data.manifest import read_manifest
from mmx.data.pairs import load_pairs
from mmx.training.bridges.base import data_sha256
from mmx.training.engine.parallel import Team
from tests.small_data import Bytes
team = Team()
cache = Path({str(tmp_path)!r}) / f"cache{{team.rank}}"
loaded = load_pairs(read_manifest({str(data)!r}, "sound2img"), Bytes(), Bytes(), team, cache=cache, quiet=True)
text = f"{{len(loaded.skipped)}} {{len(loaded.train.sources) + len(loaded.val.sources)}} {{data_sha256(loaded.train)}}"
(cache / "told").write_text(text)
"""
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*two_processes, str(script)], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    told = [(tmp_path / f"cache{rank}" / "told").read_text() for rank in range(2)]
    assert told[0] == told[1] and told[0].startswith("0 30 ")


def test_the_memo_needs_no_write_ahead_log(tmp_path: Path) -> None:
    """Its memory is one machine's. What an earlier version wrote in that mode is read."""
    item = write(tmp_path / "files", 1)[0]
    stat = os.stat(item.path)
    old = sqlite3.connect(tmp_path / "digests.sqlite")
    old.execute("PRAGMA journal_mode=WAL")
    old.execute("CREATE TABLE seen (path TEXT, offset INT, size INT, changed INT, key INT, PRIMARY KEY (path, offset))")
    with old:
        old.execute("INSERT INTO seen VALUES (?, 0, ?, ?, ?)", (item.path, stat.st_size, stat.st_mtime_ns, -2))
    beside = Digests(tmp_path)  # a process that has it open in the old mode
    assert beside.known([item]) == [(1 << 64) - 2]
    beside.base.close()
    old.close()
    digests = Digests(tmp_path)
    assert digests.base.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert digests.known([item]) == [(1 << 64) - 2] and not list(tmp_path.glob("digests.sqlite-*"))


def test_a_memo_that_cannot_be_used_only_costs_reading(tmp_path: Path, monkeypatch) -> None:
    items, encode = write(tmp_path / "files", 3), Encoder()
    (tmp_path / "digests.sqlite").write_bytes(b"broken by a disk that is full" * 99)
    for _ in range(2):
        assert filled(items, tmp_path, encode)[0].bad == []
    assert encode.calls == 3  # the rows are there nevertheless
    (tmp_path / "digests.sqlite").unlink()
    filled(items, tmp_path, encode)

    def may_not(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # somebody else's cache
        patch.setattr(Path, "touch", may_not)
        digests = Digests(tmp_path)
        digests.learn(items, [5, 5, 5], [(0, 0)] * 3)
        assert all(digests.known(items))
        patch.setattr(Path, "mkdir", may_not)
        with pytest.raises(OutputError, match="can't write here"):
            filled(items, tmp_path / "new", encode)
