"""Whether a command may fetch what is not on disk, and whose models it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Optional

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


@dataclass(frozen=True)
class Serving(Network):
    """Whose models a command takes."""

    server: Annotated[
        Optional[str],
        typer.Option(
            "--server",
            envvar="MMX_SERVER",
            metavar="WHERE",
            show_default=False,
            help="A server that has the models loaded (`mmx serve`): auto takes one if it is there; a socket, or "
            "http://127.0.0.1:PORT, must answer; none. Default: none.",
        ),
    ] = field(default=None, metadata=FREE)
