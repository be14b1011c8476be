"""How a picture is edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mmx.declared import Option


@dataclass(frozen=True)
class Pull:
    """How strongly an edit is pulled where."""

    strength: Annotated[
        float, Option("--strength", min=-5.0, max=5.0, help="How far to go; below 0 the other way.")
    ] = 1.0
    keep: Annotated[float, Option("--keep", min=0.0, max=100.0, help="How much all else is to look alike.")] = 1.0
    l2: Annotated[
        float, Option("--l2", min=0.0, max=100.0, help="How much the conditioning is to stay where it is.")
    ] = 0.05


@dataclass(frozen=True)
class Editing(Pull):
    """How a picture is edited."""

    invert: Annotated[
        int,
        Option("--invert", min=0, max=1000, help="Steps that first find what the picture itself is drawn from."),
    ] = 40
    direction: Annotated[
        bool, Option("--direction", help="Go straight along the direction of the text: no steps, at once.")
    ] = False
    strip: Annotated[bool, Option("--strip", help="A row of strengths from -3 to 3, along the direction.")] = False


@dataclass(frozen=True)
class Stopped:
    """until: the step at which an edit was stopped before its time, which no option says."""

    until: int | None = None
