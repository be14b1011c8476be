"""A store of the tests' own, in memory, that fails now and then and counts what is done with it."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyFileSystem(MemoryFileSystem):
    """Every second call fails before anything is done, as a store does that is asked too much."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls: ClassVar[int] = 0
    broken: ClassVar[bool] = False  # whether every call fails
    written: ClassVar[Counter[str]] = Counter()
    read: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _stumble(self) -> None:
        type(self).calls += 1
        if self.broken or type(self).calls % 2:
            raise OSError("slow down")

    def find(self, path: str, *given: Any, **options: Any) -> Any:
        self._stumble()
        return super().find(path, *given, **options)

    def cat_file(self, path: str, *given: Any, **options: Any) -> bytes:
        self._stumble()
        self.read[path.rpartition("/")[2]] += 1
        return super().cat_file(path, *given, **options)

    def pipe_file(self, path: str, value: bytes, *given: Any, **options: Any) -> None:
        self._stumble()
        self.written[path.rpartition("/")[2]] += 1
        super().pipe_file(path, value, *given, **options)


def empty() -> type[FlakyFileSystem]:
    """The store, known to fsspec and with nothing in it."""
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.store.clear()
    FlakyFileSystem.pseudo_dirs[:] = [""]
    FlakyFileSystem.calls, FlakyFileSystem.broken = 0, False
    FlakyFileSystem.written.clear()
    FlakyFileSystem.read.clear()
    return FlakyFileSystem
