"""The cache that many runs and many users share: what it learns, and who may read it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mmx.data.cache import Cache, Digests, Item, resolve
from tests.small_data import EMPTY, Encoder, write


def test_a_failed_read_is_not_learned(tmp_path: Path, monkeypatch) -> None:
    """A file that can't be read now (a network that is away, a right that lacks) is bad in this run, and in this run only."""
    items, encode = write(tmp_path / "files", 6), Encoder()
    whole = Item.read

    def fails(self: Item) -> bytes:
        return whole(Item(self.name, str(tmp_path / "away"))) if self.name == "3" else whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(Item, "read", fails)
        found = resolve(items, Cache(tmp_path / "cache"), Digests(tmp_path), encode, EMPTY)
    assert found.bad == ["3"] and encode.calls == 5
    found = resolve(items, Cache(tmp_path / "cache"), Digests(tmp_path), encode, EMPTY)
    assert found.bad == [] and encode.calls == 6


def test_a_member_of_a_tar_that_breaks_off_is_not_read_in_part(tmp_path: Path) -> None:
    """The first bytes of a sample are not the sample: a shard that is still being copied."""
    (tmp_path / "a.tar").write_bytes(bytes([2, 2, 2, 3]))
    items, encode = [Item("x", str(tmp_path / "a.tar"), 0, 2), Item("y", str(tmp_path / "a.tar"), 2, 4)], Encoder()
    found = resolve(items, Cache(tmp_path / "cache"), Digests(tmp_path), encode, EMPTY)
    assert found.bad == ["y"] and encode.calls == 1


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch) -> None:
    items, encode, whole = write(tmp_path / "files", 3), Encoder(), Item.read

    def changes(self: Item) -> bytes:
        data = whole(self)
        Path(self.path).write_bytes(data + bytes(9))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Item, "read", changes)
        resolve(items, Cache(tmp_path / "cache"), Digests(tmp_path), encode, EMPTY)
    assert Digests(tmp_path).known(items) == [None] * 3


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
    Cache(tmp_path / "cache").add([key], [EMPTY])
    found = resolve(items, Cache(tmp_path / "cache"), digests, encode, EMPTY)
    assert found.bad == ["2"] and encode.calls == 2


def test_a_shared_cache_can_be_read_and_written_by_the_group(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        root = tmp_path / "shared"
        resolve(write(tmp_path / "files", 3), Cache(root / "space"), Digests(root), Encoder(), EMPTY)
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in root.rglob("*") if path.is_file()}
    assert len(modes) >= 2 and set(modes.values()) == {"0o664"}, modes
    assert all(path.stat().st_mode & 0o070 == 0o070 for path in (root, root / "space"))
    assert torch.equal(Cache(root / "space").read(0), torch.full((1, 2), 1.0))
