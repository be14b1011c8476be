"""Whether a launcher started this process as one of several, as torchrun and `accelerate launch` do."""

from __future__ import annotations

import os
from dataclasses import dataclass

# all that such a launcher says; pods and batch systems set some of them for purposes of their own
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launched:
    """This process's number, the number on its machine, and how many processes there are."""

    rank: int = 0
    local: int = 0
    world: int = 1


def launched() -> Launched:
    """What the launcher said; one process where there was none, or where what the environment says is not whole."""
    said = {name: os.environ.get(name, "").strip() for name in VARIABLES}
    numbers = [said[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    if not all(said.values()) or not all(number.isdecimal() for number in numbers):
        return Launched()
    found = Launched(*map(int, numbers))
    return found if found.rank < found.world else Launched()


def stray() -> list[str]:
    """The variables of a launcher that are set though none started this process, and so mean nothing here."""
    alone = {"RANK": "0", "WORLD_SIZE": "1"}
    there = [name for name, usual in alone.items() if os.environ.get(name, "").strip() not in ("", usual)]
    return [] if launched().world > 1 else there
