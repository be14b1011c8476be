"""What an avatar is asked for, and what comes of it: plain data, free of torch, that a process may hand to another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmx.errors import Interrupted, MmxError, NonFiniteError
from mmx.media.files import Source
from mmx.media.given import Artifact, Given
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.query import Term

WRITTEN = (".glb", ".obj", ".ply", ".gif", ".png", ".mp4")
OFTEN = 10  # steps from one preview to the next


@dataclass(frozen=True)
class AvatarJob:
    """meshes: files, several for a motion. query: terms, texts and files, with weights. device: as it was
    asked for. until: after so many of the steps it was stopped."""

    meshes: tuple[Given, ...]
    query: tuple[Given, ...]
    options: AvatarOptions
    device: str = "auto"
    until: int | None = None


@dataclass(frozen=True)
class Piece:
    """A file that is wanted. suffix: one of WRITTEN. frame: of a motion, None is all of it where the kind can hold
    that, and the first where it can't."""

    suffix: str
    frame: int | None = None


@dataclass(frozen=True)
class Order:
    """A job, and what is wanted of it. previews: whether a picture of every OFTEN-th step is."""

    job: AvatarJob
    pieces: tuple[Piece, ...]
    previews: bool = False


@dataclass
class Dressed:
    """artifacts: in the order of the pieces, made as they are taken; none where there was no step. step: after how many
    of them that is. losses: by name, of the last one. front: degrees. stopped: as of `Outcome`."""

    artifacts: Iterable[Artifact]
    step: int
    losses: dict[str, float]
    front: float
    stopped: str = ""

    def wrong(self, total: int) -> MmxError | None:
        """What there is to say where it ended before `total` steps, and of its own."""
        kept = f"what there was after {self.step} of {total} steps is written" if self.step else "nothing was made yet"
        if self.stopped == "nonfinite":
            hint = "another --seed, or --dtype fp32"
            return NonFiniteError(f"the losses are no numbers any more; {kept}", hint=hint)
        return Interrupted(f"interrupted; {kept}") if self.stopped == "interrupted" else None


class Watcher(Protocol):
    """Is told how it goes."""

    def ready(self, notes: list[str], triangles: int) -> None:
        """All is read, and the first step begins. notes: on the meshes."""

    def step(self, step: int, total: int, losses: dict[str, float]) -> None:
        """As of `Watch`."""

    def preview(self, png: bytes) -> None:
        """What there is by now."""


def given_of(term: Term) -> Given:
    """A term of the query as a job takes it. Raises InputError."""
    if term.kind == "text":
        return Given(term.value, term.value.encode(), "query", term.weight, is_text=True)
    path = Path(term.value)
    data = term.data if isinstance(term.data, bytes) else Source(path, path).read()
    return Given(term.value, data, "array" if term.kind == "array" else "query", term.weight)
