"""`mmx serve`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.takes import takes
from mmx.errors import UsageError
from mmx.extras import require
from mmx.network import Network
from mmx.options import Quiet
from mmx.serving.wire import SERVED


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and what it loads first."""

    commands: Annotated[
        list[str],
        typer.Argument(
            metavar="[COMMAND...]", show_default=False, help="Load their starter models first. Default: when asked."
        ),
    ] = field(default_factory=list)
    socket: Annotated[
        Optional[Path],
        typer.Option("--socket", metavar="FILE", show_default=False, help="A Unix socket. Default: your own."),
    ] = None
    port: Annotated[
        Optional[int],
        typer.Option(
            "--port",
            min=0,
            max=65_535,
            show_default=False,
            help="Listen on this port of the machine's own address instead, with a token; 0 takes a free one.",
        ),
    ] = None
    host: Annotated[str, typer.Option("--host", help="Of the port: 127.0.0.1 or ::1.")] = "127.0.0.1"


@dataclass(frozen=True)
class Bounds:
    """What the server takes, and how long it stays."""

    idle: Annotated[
        float, typer.Option("--idle", min=0, metavar="MINUTES", help="Leave when nobody asked for that long; 0 stays.")
    ] = 60.0
    queue: Annotated[int, typer.Option("--queue", min=1, max=100_000, help="Jobs at a time; more get a 429.")] = 64
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, max=1024, help="Of one request.")] = 256
    keep: Annotated[int, typer.Option("--keep", min=1, max=64, help="Sets of models that stay loaded.")] = 8


@takes
def serve(listening: Listening, bounds: Bounds, network: Network, saying: Quiet) -> None:
    """Keep models loaded, so that commands with --server auto (or MMX_SERVER=auto) need not load them.

    mmx serve sound2img &

    export MMX_SERVER=auto; mmx sound2img bark.wav -o dog.png

    It answers HTTP, too: its page / and /openapi.json say what. Nothing leaves this machine, and nobody else may ask.
    """
    require("mmx serve", "starlette", "uvicorn", "python_multipart")
    unknown = [name for name in listening.commands if name not in SERVED]
    if unknown:
        raise UsageError(f"{unknown[0]}: no such command to load models for", hint=", ".join(SERVED))
    from mmx.serving.app import Limits, make_app  # from here on it is slow: torch
    from mmx.serving.listen import listen, on_port, on_socket

    there = on_socket(listening.socket) if listening.port is None else on_port(listening.host, listening.port)
    limits = Limits(room=bounds.queue, size=bounds.max_mb << 20, shelf=bounds.keep)
    app = make_app(limits, token=there.token, preload=tuple(listening.commands))

    def ready() -> None:
        if not saying.quiet:
            how = f", token in {there.files[0]}" if there.token else ""
            print(f"mmx serve: {there.where}{how}", file=sys.stderr, flush=True)

    try:
        listen(app, there, bounds.idle * 60, ready)
    finally:
        there.close()
