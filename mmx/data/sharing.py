"""Several processes that fill caches: which of them see the same folder, and which part of the work each of these does.

All processes of a run may see one folder, on one machine or over a network file system; or each machine has its own
disk, and a cache on it. Those that see the same folder are a group: it fills its folder by itself, each member its
part. The groups find themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import uuid4

T = TypeVar("T")
PATIENCE = 60.0  # seconds: a network file system may show a new file as late as this


class Processes(Protocol):
    """The processes of a run (`Team`)."""

    rank: int
    world: int

    @property
    def leads(self) -> bool: ...

    def share(self, value: T) -> list[T]:
        """Every process's value, by rank, once all of them are here."""
        ...


class Alone:
    """A run of one process."""

    rank, world, leads = 0, 1, True

    def share(self, value: T) -> list[T]:
        return [value]


@dataclass(frozen=True)
class Group:
    """The processes, by rank, that see the cache folder `root` as this one does."""

    root: Path = Path()
    team: Processes = field(default_factory=Alone)
    ranks: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, root: Path, team: Processes) -> Group:
        """Found out by files: each process writes one into its cache folder, and looks for those of all others."""
        if team.world == 1:
            return cls(root, team, (team.rank,))
        token = root / f".seen-{uuid4().hex}"
        with suppress(OSError):  # nothing can be written here: then nothing can be divided, either
            token.touch()
        ranks = tuple(rank for rank, name in enumerate(team.share(token.name)) if (root / name).exists())
        team.share(None)  # all have looked
        token.unlink(missing_ok=True)
        return cls(root, team, ranks if team.rank in ranks else (team.rank,))

    def mine(self, number: int) -> bool:
        """Whether this process does part `number` of the group's work."""
        return self.ranks[number % len(self.ranks)] == self.team.rank

    def share(self, value: T, files: Iterable[Path] = ()) -> list[T]:
        """The value of each member, once all processes of the run are here, and the files that the members wrote can be
        seen.
        """
        names = [path.relative_to(self.root).as_posix() for path in files] if self.team.world > 1 else []
        told: list[tuple[T, list[str]]] = self.team.share((value, names))
        members = [told[rank] for rank in self.ranks]
        waiting = [self.root / name for _, names in members for name in names]
        end = time.monotonic() + PATIENCE
        while (waiting := [path for path in waiting if not path.exists()]) and time.monotonic() < end:
            time.sleep(0.2)
        return [value for value, _ in members]
