"""Listening until it is enough: sockets that nobody else may use, signals, and the end after an idle while."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from mmx.errors import DiskError, UsageError
from mmx.serving.address import TOKEN, default_socket, is_loopback, token_file
from mmx.serving.door import Guard

CHECK = 1.0  # seconds between two looks at whether anything is to do


@dataclass
class Listener:
    """A socket that listens, what it is reached by, and the files that are there as long as it is."""

    socket: socket.socket
    where: str
    token: str = ""
    files: tuple[Path, ...] = ()

    def close(self) -> None:
        self.socket.close()
        for path in self.files:
            with suppress(OSError):
                path.unlink()


def on_socket(path: Path | None) -> Listener:
    """A Unix socket of mode 0600. None: the default one. Raises UsageError where a server listens there already."""
    path = default_socket(make=True) if path is None else path
    if path.is_socket():
        _refuse_living(path)
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        kind = DiskError if error.errno in (errno.ENOSPC, errno.EROFS) else UsageError
        raise kind(f"{path}: can't listen there: {error.strerror or error}", hint="mmx serve --socket FILE") from None
    finally:
        os.umask(before)
    return Listener(listening, str(path), files=(path,))


def _refuse_living(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise UsageError(f"{path}: a server listens there already", hint="stop it, or mmx serve --socket FILE")


def on_port(host: str, port: int) -> Listener:
    """A loopback port (0: any that is free), and a token in a file that only its owner may read. Raises UsageError."""
    if not is_loopback(host):
        raise UsageError(f"--host {host}: only this machine's own addresses", hint="tunnel it: ssh -L")
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"{host}:{port}: can't listen there: {error.strerror}", hint="another --port") from None
    port = listening.getsockname()[1]
    token, file = os.environ.get(TOKEN) or secrets.token_urlsafe(32), token_file(port, make=True)
    with suppress(FileNotFoundError):
        file.unlink()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as out:
        out.write(token)
    shown = f"[{host}]" if ":" in host else host
    return Listener(listening, f"http://{shown}:{port}", token, (file,))


def server_of(app: Guard) -> uvicorn.Server:
    """What answers with the app's pages, once it is given something to listen on."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", server_header=False)
    return uvicorn.Server(config)


def listen(app: Guard, listener: Listener, idle: float, ready: Callable[[], None]) -> None:
    """Answer until SIGTERM or Ctrl-C, after which what runs is finished, or until nothing was asked for `idle` s.

    idle: 0 is for ever.
    """
    server = server_of(app)

    async def serve() -> None:
        watching = asyncio.create_task(_watch(server, app, idle, ready))
        await server.serve(sockets=[listener.socket])
        watching.cancel()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:  # uvicorn raises the signal once more when all is done
        if not server.started:
            raise


async def _watch(server: uvicorn.Server, app: Guard, idle: float, ready: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    ready()
    while not (idle and app.state.line.idle_for() >= idle):
        await asyncio.sleep(min(CHECK, idle or CHECK))
    server.should_exit = True
