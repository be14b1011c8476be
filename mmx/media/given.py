"""What a job is, and what comes of it: plain data, free of torch, that a process may hand to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmx.digest import sha256
from mmx.media.names import printable
from mmx.options import Settings

Watch = Callable[[int, int, dict[str, float]], None]  # is told of a step, of how many, and of its losses by name


@dataclass(frozen=True)
class Given:
    """An input as it was given: its bytes, its name, what it is for, and its weight where it is blended in."""

    name: str
    data: bytes
    role: str = "source"
    weight: float = 1.0
    is_text: bool = False  # typed on the command line: it is kept in the artifact, because no file holds it

    def as_dict(self) -> dict[str, Any]:
        """As provenance keeps it: the name without folders, and the digest."""
        about = {
            "role": self.role,
            "name": printable(Path(self.name).name),
            "sha256": sha256(self.data),
            "weight": self.weight,
        }
        return about | ({"text": self.data.decode()} if self.is_text else {})


@dataclass(frozen=True)
class Job:
    """Sources (several only for one grid of all), what is blended in, the settings, and which results are wanted."""

    inputs: tuple[Given, ...]
    settings: Settings
    indices: tuple[int, ...] = (0,)
    layout: str = "single"
    command: str = "sound2img"
    strict: bool = False  # refuse sounds of which a part is missing

    def of(self, role: str) -> list[Given]:
        """The inputs of one role."""
        return [given for given in self.inputs if given.role == role]


@dataclass
class Artifact:
    """The bytes of one output file, and what they say of themselves."""

    data: bytes
    record: dict[str, Any]


@dataclass
class Done:
    """A finished job. stopped: "interrupted" or "nonfinite" where what there was by then is all that it gives: of the
    result that was in work what was best, and none of those after it."""

    artifacts: list[Artifact]
    heard: list[list[tuple[str, float]]]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
