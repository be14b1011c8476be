"""Whether a command may fetch what is not on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated

import typer

from mmx.options import FREE


def _forbid_network(forbidden: bool) -> bool:
    """What every library that could fetch something reads, in this process and those that it starts."""
    if forbidden:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return forbidden


@dataclass(frozen=True)
class Network:
    """Whether a command may fetch what is not on disk. It is heeded when the line is read: nobody has to ask."""

    offline: Annotated[
        bool, typer.Option("--offline", callback=_forbid_network, help="Fetch nothing: models and data must be here.")
    ] = field(default=False, metadata=FREE)
