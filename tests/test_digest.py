"""Digests of files: remembered while the file stays as it is, in this process and the next, and never in its way."""

from __future__ import annotations

import builtins
import hashlib
import os
import time
from pathlib import Path

import pytest

from mmx import digest
from mmx.decoders.base import fingerprint
from mmx.digest import sha256, sha256_of_file
from mmx.models.hub import damaged
from mmx.models.store import seal, verify


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file that settled long ago, as the clock says, and a memo of its own."""
    monkeypatch.setenv("MMX_CACHE", str(tmp_path / "cache"))
    now = time.time_ns()
    monkeypatch.setattr(digest.time, "time_ns", lambda: now + 3600 * 10**9)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a" * digest.LARGE)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened for their digest."""
    opened: list[str] = []
    real = hashlib.file_digest

    def counted(file, name):
        opened.append(file.name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return opened


def forget() -> None:
    """As a new process begins."""
    digest._memo.cache_clear()


def test_a_file_is_read_once_until_it_changes(weights: Path, reads: list) -> None:
    for _ in range(2):
        assert sha256_of_file(weights) == sha256(weights.read_bytes())
        forget()
    assert len(reads) == 1
    stat = weights.stat()
    weights.write_bytes(b"b" * digest.LARGE)
    os.utime(
        weights, ns=(stat.st_atime_ns, stat.st_mtime_ns)
    )  # as installers do: another file of the same size and time
    assert sha256_of_file(weights) == sha256(weights.read_bytes()) and len(reads) == 2
    assert sha256_of_file(weights, fresh=True) == sha256(weights.read_bytes()) and len(reads) == 3


def test_loading_reads_the_weights_once_and_verifying_each_time(weights: Path, reads: list) -> None:
    """The digests that a seal is held against, those of a space, and those by which the hub names its files."""
    folder = weights.parent / "model"
    blob = weights.parent / "blobs" / sha256(weights.read_bytes())
    for path in (folder / "model.safetensors", blob):
        path.parent.mkdir()
        path.write_bytes(weights.read_bytes())
    seal(folder)
    snapshot = weights.parent / "snapshots" / "c"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)

    def large() -> int:
        return sum(Path(name).name in ("model.safetensors", blob.name) for name in reads)

    for _ in range(3):
        forget()
        verify(folder)
        fingerprint(folder, (".",))
        assert damaged(snapshot, fresh=False) == []
        assert large() == 2
    verify(folder, fresh=True)
    assert damaged(snapshot) == [] and large() == 4


def test_a_link_shares_the_memo_of_its_file(weights: Path, reads: list) -> None:
    link = weights.with_name("link")
    link.symlink_to(weights)
    assert sha256_of_file(link) == sha256_of_file(weights) and len(reads) == 1


def test_what_has_just_changed_or_is_small_is_not_trusted(weights: Path, reads: list, monkeypatch) -> None:
    small = weights.with_name("config.json")
    small.write_bytes(b"{}")
    assert sha256_of_file(small) == sha256_of_file(small) and len(reads) == 2
    now = max(weights.stat().st_mtime_ns, weights.stat().st_ctime_ns)
    monkeypatch.setattr(digest.time, "time_ns", lambda: now + 1)
    assert sha256_of_file(weights) == sha256_of_file(weights) and len(reads) == 4


def test_a_memo_that_is_torn_large_or_read_only_does_not_matter(weights: Path, reads: list, monkeypatch) -> None:
    right = sha256(weights.read_bytes())
    memo = Path(os.environ["MMX_CACHE"]) / "digests.jsonl"
    memo.parent.mkdir()
    memo.write_bytes(b'["/cut\n[]\n{}\n7\n')
    assert sha256_of_file(weights) == right
    forget()
    assert sha256_of_file(weights) == right and len(reads) == 1
    memo.write_bytes(b"\n" * (digest.LIMIT + 1))
    forget()
    assert sha256_of_file(weights) == right and len(reads) == 2 and memo.stat().st_size < digest.LIMIT
    memo.unlink()
    forget()

    def refused(self, mode="r", *rest, **more):
        if "a" in mode:
            raise PermissionError(13, "Read-only file system")
        return builtins.open(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refused)
    assert sha256_of_file(weights) == right and not memo.exists()
