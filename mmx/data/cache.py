"""What a frozen model makes of a file, computed once: a content-addressed cache on disk, read row by row.

A row's key is the file's content; a space is one way to compute (which model, which features). A space is a folder of
safetensors shards. A shard is written beside and renamed into place, so a kill loses at most the shard in work; its
name follows from its keys, so two processes that compute the same write the same file. Rows are read with pread: memory
does not grow with the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from mmx.errors import OutputError
from mmx.media.files import write_atomic

OPEN = 128  # shards open at once; many systems allow a process 1,024 files, some 256
DTYPES = {"F16": torch.float16, "F32": torch.float32, "I16": torch.int16}


def make_folder(folder: Path) -> None:
    """A folder of the cache, made where it is not there. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "--cache or MMX_CACHE names another folder"
        raise OutputError(f"{folder}: can't write here: {error.strerror}", hint=hint) from None


def content_key(data: bytes) -> int:
    """The first 64 bits of the sha256. 0 stands for a key that is not known."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


class _OpenFiles:
    """Files to read from, of which the last so many are kept open: a space has more shards than a process may have open
    files.
    """

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


_open = _OpenFiles()


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
        make_folder(folder)
        self.written: list[Path] = []  # by this process
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
        path = self.folder / f"{name}.safetensors"
        write_atomic(path, save(tensors))
        self.written.append(path)
