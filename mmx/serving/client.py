"""A command's side of a server: it reads the inputs and writes the outputs itself, and sends bytes."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, TypeVar

import mmx
from mmx.errors import MmxError, NetworkError, UsageError
from mmx.guided.avatar_given import Dressed, Order, Watcher
from mmx.interrupt import Interruptible
from mmx.media.given import Done, Job, Watch
from mmx.serving.address import Address
from mmx.serving.wire import (
    Asked,
    error_of,
    pack,
    pack_job,
    pack_order,
    pack_question,
    unpack_answer,
    unpack_done,
    unpack_dressed,
)
from mmx.spaces.question import Answer, Question
from mmx.tasks import TASKS

Event = dict[str, Any]  # what a server tells of a job, as a line of its answer
Made = TypeVar("Made", Done, Dressed)
CONNECT = 5.0  # seconds that a server may take to accept
TRIES = 600  # of a job that a full queue does not take, a tenth of a second to a second apart


class Gone(NetworkError):
    """No server answers, or it went away before it had answered."""


class _Unix(HTTPConnection):
    """HTTP over a Unix socket of our own user's."""

    def __init__(self, address: Address) -> None:
        super().__init__("localhost")
        self.address = address

    def connect(self) -> None:
        path = str(self.address.socket)
        if os.stat(path).st_uid != os.geteuid():
            raise UsageError(f"{path}: another user's server", hint="--server none")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT)
        self.sock.connect(path)
        self.sock.settimeout(None)


class Served:
    """The models of a command, in a server. Raises Gone, and whatever the models themselves raise, from each call."""

    def __init__(self, address: Address, asked: Asked, given: Mapping[str, str] | None = None) -> None:
        """given: folders as the server knows them → as the user wrote them, who is told of them."""
        self.address, self.asked, self.given = address, asked, given or {}
        about = json.loads(self._post("/v1/open", pack(asked.as_dict(), ())))
        self.place, self.notice, self.models = about["place"], about["notice"], about["models"]
        self.facts: dict[str, Any] = about.get("facts", {})
        self.watch: Watch | None = None

    def run(self, job: Job) -> Done:
        """As `mmx.translate.job.run`, elsewhere. Of what goes by steps Ctrl-C brings what is best by then."""
        if job.command not in TASKS or not TASKS[job.command].stepped:
            return unpack_done(self._post("/v1/jobs", pack_job(self.asked, job)))

        def told(event: Event) -> None:
            if self.watch is not None:
                self.watch(event["step"], event["of"], event["losses"])

        return self._by_steps(lambda ticket: pack_job(self.asked, job, ticket), told, unpack_done)

    def dress(self, order: Order, watcher: Watcher) -> Dressed:
        """As `mmx.guided.avatar_job.dress`, elsewhere."""
        hear: dict[str, Callable[[Event], None]] = {
            "ready": lambda event: watcher.ready(event["notes"], event["triangles"]),
            "step": lambda event: watcher.step(event["step"], event["of"], event["losses"]),
            "preview": lambda event: watcher.preview(base64.b64decode(event["png"])),
        }

        def told(event: Event) -> None:
            hear[event["event"]](event)

        return self._by_steps(lambda ticket: pack_order(self.asked, order, ticket), told, unpack_dressed)

    def _by_steps(
        self, packed: Callable[[str], bytes], told: Callable[[Event], None], unpacked: Callable[[bytes], Made]
    ) -> Made:
        """What comes of a job. packed: it, by what it is called. told: of all that the server tells; after the first of
        it Ctrl-C brings what is best by then."""
        ticket, wishes = secrets.token_hex(16), Interruptible()
        with ExitStack() as begun:

            def read(answer: HTTPResponse) -> bytes:
                stopping = False
                for number, event in enumerate(self._followed(answer)):
                    if not number:  # up to here Ctrl-C ends it at once
                        begun.enter_context(wishes)
                    told(event)
                    if wishes.asked and not stopping:
                        self._once(f"/v1/stop?ticket={ticket}", b"")
                        stopping = True
                return answer.read()

            made = unpacked(self._post("/v1/jobs", packed(ticket), read))
        if wishes.asked:  # even where it was done by then
            made.stopped = made.stopped or "interrupted"
        return made

    def watched(self, watch: Watch) -> None:
        """Have each step told."""
        self.watch = watch

    def _followed(self, answer: HTTPResponse) -> Iterator[Event]:
        """What is told of a job, up to what was made. Raises the error that is told in its place, and Gone."""
        for line in iter(answer.readline, b""):
            event: Event = json.loads(line)
            if event["event"] == "done":
                return
            if event["event"] == "error":
                raise self._as_written(error_of(event))
            yield event
        raise Gone(f"the server at {self.address} went away")

    def ask(self, question: Question) -> list[Answer]:
        """As `Consulted.run`, elsewhere, and all at once."""
        answer = unpack_answer(self._post("/v1/questions", pack_question(self.asked, question.sent())))
        if isinstance(answer.error, MmxError):
            self._as_written(answer.error)
        return [answer]

    def _post(self, path: str, body: bytes, read: Callable[[HTTPResponse], bytes] = HTTPResponse.read) -> bytes:
        """The answer, as it is read where all is well. Raises the error that it tells of."""
        for attempt in range(TRIES):
            status, data = self._once(path, body, read)
            if status != 429:
                break
            import time

            time.sleep(min(1.0, 0.1 * (attempt + 1)))
        if status == 200:
            return data
        if status == 413:
            raise Gone(f"{self.address}: the server takes no input of this size", hint="--server none")
        try:
            about: dict[str, Any] = json.loads(data)
        except ValueError:
            raise NetworkError(f"{self.address}: no server of mmx ({status})") from None
        if about.get("version", mmx.__version__) != mmx.__version__:
            raise Gone(
                f"the server at {self.address} is mmx {about['version']}, this is {mmx.__version__}",
                hint="start it again, or --server none",
            )
        raise self._as_written(error_of(about))

    def _as_written(self, error: MmxError) -> MmxError:
        """An error that calls folders what the user calls them."""
        for known, written in self.given.items():
            error.message = error.message.replace(known, written)
            error.hint = error.hint.replace(known, written)
        return error

    def _once(
        self, path: str, body: bytes, read: Callable[[HTTPResponse], bytes] = HTTPResponse.read
    ) -> tuple[int, bytes]:
        to = self.address
        connection = _Unix(to) if to.socket else HTTPConnection(to.host, to.port)
        headers = {"Content-Type": "application/octet-stream"}
        headers |= {"Authorization": f"Bearer {to.token}"} if to.token else {}
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, read(answer) if answer.status == 200 else answer.read()
        except (OSError, HTTPException):
            raise Gone(f"no server answers at {to}", hint="mmx serve starts one; --server none does without") from None
        finally:
            connection.close()


def folders_in(name: str | None) -> dict[str, str]:
    """The folders that a model's name consists of: as a server knows them, who is in another folder → as given."""
    parts = [name] if name is None or os.path.isdir(name) else name.split("+")
    return {os.path.abspath(part): part for part in parts if part and os.path.isdir(part)}


def absolute(name: str | None) -> str | None:
    """A model's name as a server understands it."""
    if name is None or os.path.isdir(name):
        return name and os.path.abspath(name)
    return "+".join(os.path.abspath(part) if os.path.isdir(part) else part for part in name.split("+"))
