"""Whether a command may fetch what is not on disk, and whose models it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Optional

from mmx.declared import Option
from mmx.errors import UsageError
from mmx.options import FREE


def _forbid_network(forbidden: bool) -> bool:
    """What every library that could fetch something reads, in this process and those that it starts."""
    if forbidden:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return forbidden


@dataclass(frozen=True)
class Network:
    """Whether a command may fetch what is not on disk. It is heeded when the line is read: nobody has to ask."""

    server: ClassVar[str | None] = None  # of commands that no server is for

    offline: Annotated[
        bool, Option("--offline", callback=_forbid_network, help="Fetch nothing: models and data must be here.")
    ] = field(default=False, metadata=FREE)

    @property
    def on_ray(self) -> bool:
        """Whether it is computed on a cluster."""
        return False

    def check(self) -> None:
        """Raise UsageError for options that have no meaning together, before any work."""


@dataclass(frozen=True)
class Serving(Network):
    """Whose models a command takes."""

    server: Annotated[
        Optional[str],
        Option(
            "--server",
            envvar="MMX_SERVER",
            metavar="WHERE",
            show_default=False,
            help="A server that has the models loaded (`mmx serve`): auto takes one if it is there; a socket, or "
            "http://127.0.0.1:PORT, must answer; none. Default: none.",
        ),
    ] = field(default=None, metadata=FREE)


@dataclass(frozen=True)
class Clustered(Network):
    """On which machines a command's jobs are computed."""

    engine: Annotated[
        str,
        Option("--engine", metavar="here|ray", help="Compute on this machine, or on the workers of a Ray cluster."),
    ] = field(default="here", metadata=FREE)
    address: Annotated[
        Optional[str],
        Option(
            "--address",
            metavar="HOST:PORT",
            show_default=False,
            help="Of the Ray cluster. Default: RAY_ADDRESS, the one that this machine belongs to, or else a new one "
            "here.",
        ),
    ] = field(default=None, metadata=FREE)
    workers: Annotated[
        Optional[int],
        Option(
            "--workers",
            min=1,
            max=10_000,
            show_default=False,
            help="How many processes of the cluster hold the models. Default: as many as there is room for.",
        ),
    ] = field(default=None, metadata=FREE)
    gpus: Annotated[
        Optional[float],
        Option("--gpus", min=0.0, max=64.0, show_default=False, help="GPUs of each worker, such as 0.25. Default: 1."),
    ] = field(default=None, metadata=FREE)

    @property
    def on_ray(self) -> bool:
        """Whether it is computed on a cluster."""
        return self.engine == "ray"

    def check(self) -> None:
        """Raise UsageError for options that have no meaning together, before any work."""
        if self.engine not in ("here", "ray"):
            raise UsageError(f"--engine {self.engine}: no such engine", hint="here or ray")
        of_ray = {"--address": self.address, "--workers": self.workers, "--gpus": self.gpus}
        stray = next((name for name, value in of_ray.items() if value is not None), None)
        if self.engine == "here" and stray:
            raise UsageError(f"{stray} is for --engine ray")


@dataclass(frozen=True)
class Spread(Serving, Clustered):
    """Whose models a command takes, and on which machines."""

    def check(self) -> None:
        """Raise UsageError for options that have no meaning together, before any work."""
        super().check()
        if self.engine == "ray" and self.server not in (None, "none", "auto"):
            raise UsageError(f"--engine ray computes elsewhere than --server {self.server}", hint="--server none")
