"""A server in a thread of the tests' process, and a way to ask it."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from mmx.serving.app import Guard, Limits, make_app
from mmx.serving.listen import Listener, on_port, on_socket, server_of


@dataclass
class Running:
    """A server in a thread of this process."""

    app: Guard
    listener: Listener

    @property
    def where(self) -> str:
        return self.listener.where

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """An answer's status and body."""
        connection = self.connect()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def connect(self) -> HTTPConnection:
        connection = HTTPConnection("localhost")
        connection.sock = self.raw()
        return connection

    def raw(self) -> socket.socket:
        own = self.listener.socket
        found = socket.socket(own.family)
        found.settimeout(60)
        found.connect(own.getsockname())
        return found


@contextmanager
def servers() -> Iterator[Callable[..., Running]]:
    """Starts servers, which end with it."""
    ends = []

    def run(limits: Limits = Limits(), port: bool = False) -> Running:
        listener = on_port("127.0.0.1", 0) if port else on_socket(None)
        app = make_app(limits, token=listener.token)
        server = server_of(app)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener.socket])))
        thread.start()
        while not server.started:
            assert thread.is_alive()
        running = Running(app, listener)

        def end() -> None:
            server.should_exit = True
            thread.join()
            listener.close()

        ends.append(end)
        return running

    try:
        yield run
    finally:
        for end in ends:
            end()


def both_ways(
    mmx_in_process: Callable[..., tuple[int, bytes, bytes]],
    words: list[str],
    stdin: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> list[tuple[int, bytes, bytes, dict[str, bytes]]]:
    """A command without a server and with one: its exit code, stdout, stderr, and the files that it wrote below out/,
    which are removed."""
    found = []
    for server in ("none", "auto"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code, out, err = mmx_in_process(*words, "--server", server)
        files = {str(path): path.read_bytes() for path in sorted(Path("out").rglob("*.*"))}
        found.append((code, out, err, files))
        for path in files:
            os.unlink(path)
    return found
