"""A shard of an index: a folder with float16 vectors, mapped into memory, and a line of JSON for each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from mmx.errors import ModelError
from mmx.spaces.base import MODALITIES
from mmx.spaces.question import Row

VECTORS, CODES, OFFSETS, SUMS, ROWS = "vectors.npy", "codes.npy", "offsets.npy", "sums.npy", "rows.jsonl"


@dataclass(frozen=True)
class Shard:
    """N rows. Nothing of the vectors is read before it is needed."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def vectors(self) -> np.ndarray:
        """(N, D) float16, of unit norm. Mapped so that torch takes it; nothing that is written there reaches the
        file."""
        return self._array(VECTORS, mapped=True)

    @cached_property
    def codes(self) -> np.ndarray:
        """(N,) uint8: each row's modality, by its place in MODALITIES."""
        return self._array(CODES)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(N + 1,) int64: where each line begins, and where the last ends."""
        return self._array(OFFSETS)

    @cached_property
    def sums(self) -> np.ndarray:
        """(M, D) float64: the sum of the vectors of each modality; of a modality that is younger than the shard, 0."""
        known = self._array(SUMS)
        return np.pad(known, ((0, len(MODALITIES) - len(known)), (0, 0)))

    @property
    def counts(self) -> np.ndarray:
        """(M,) int64: how many rows there are of each modality."""
        return np.bincount(self.codes, minlength=len(MODALITIES))

    def _array(self, name: str, *, mapped: bool = False) -> np.ndarray:
        try:
            return np.load(self.folder / name, mmap_mode="c" if mapped else None, allow_pickle=False)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, EOFError, SyntaxError, TokenError, MemoryError) as error:  # of a .npy's header
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"{self.folder}: {name} can't be read: {said}", hint="index it anew: delete it") from None

    def row(self, number: int) -> Row:
        """What row `number` is of."""
        start, end = self.offsets[number : number + 2].tolist()
        with (self.folder / ROWS).open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))

    def rows(self) -> list[Row]:
        """What all rows are of."""
        return [json.loads(line) for line in (self.folder / ROWS).read_bytes().splitlines()]


def write_shard(folder: Path, rows: Sequence[Row], vectors: np.ndarray) -> Shard:
    """Rows and their vectors (N, D) → a new folder, which is there whole or not at all."""
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    lines = [f"{json.dumps(row)}\n".encode() for row in rows]
    codes = np.array([MODALITIES.index(row["modality"]) for row in rows], np.uint8)
    half = np.ascontiguousarray(vectors, np.float16)
    sums = [half[codes == code].astype(np.float64).sum(0) for code in range(len(MODALITIES))]
    arrays = {
        VECTORS: half,
        CODES: codes,
        OFFSETS: np.cumsum([0, *map(len, lines)], dtype=np.int64),
        SUMS: np.stack(sums),
    }
    for name, array in arrays.items():
        with (scratch / name).open("wb") as file:
            np.save(file, array)
            _settle(file)
    with (scratch / ROWS).open("wb") as file:
        file.writelines(lines)
        _settle(file)
    scratch.rename(folder)
    return Shard(folder)


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
