"""Jobs that go by steps: what they tell while they are in work, and how they are ended before their time.

A stream is a line of JSON for each thing that is told, and a last one that says done or what went wrong; what was made
follows it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from starlette.responses import Response, StreamingResponse

from mmx.errors import MmxError, UsageError
from mmx.faults import unexpected
from mmx.interrupt import stopped_by
from mmx.serving.line import Left, Line, Work
from mmx.serving.wire import SCHEMA

NDJSON = "application/x-ndjson"
T = TypeVar("T")


class Stepping(Generic[T]):
    """A job in work, which tells it how it goes. stop: set, it ends at the next step, with what is best by then."""

    def __init__(
        self, work: Callable[[Stepping[T]], T], left: Callable[[], Awaitable[bool]], ticket: str | None = None
    ) -> None:
        """left: as of `Work`. ticket: what it is called by who asked for it."""
        self.work, self.left, self.ticket, self.stop = work, left, ticket, threading.Event()
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def run(self) -> T:
        """What the models' thread does."""
        try:
            with stopped_by(self.stop):
                return self.work(self)
        finally:
            self._tell(None)

    def ready(self, notes: list[str], triangles: int) -> None:
        """A mesh is read, and its first step begins."""
        self._tell({"event": "ready", "notes": notes, "triangles": triangles})

    def step(self, step: int, total: int, losses: dict[str, float]) -> None:
        """As of `Watch`."""
        self._tell({"event": "step", "step": step, "of": total, "losses": losses})

    def preview(self, png: bytes) -> None:
        """What there is by now."""
        self._tell({"event": "preview", "png": base64.b64encode(png).decode()})

    def _tell(self, event: dict[str, Any] | None) -> None:
        self._loop.call_soon_threadsafe(self._steps.put_nowait, event)

    async def answer(self, doing: asyncio.Task[T], last: Callable[[T], bytes]) -> Response:
        """A stream of what is told, and of what `last` makes of the result; where nothing was it is all there. Raises
        what the job raises before it tells anything."""
        next_one = asyncio.ensure_future(self._steps.get())
        await asyncio.wait([next_one, doing], return_when=asyncio.FIRST_COMPLETED)
        if not next_one.done() or next_one.result() is None:
            next_one.cancel()
            return Response(last(await doing), media_type=NDJSON)
        return StreamingResponse(self._lines(next_one.result(), doing, last), media_type=NDJSON)

    async def _lines(
        self, event: dict[str, Any] | None, doing: asyncio.Task[T], last: Callable[[T], bytes]
    ) -> AsyncIterator[bytes]:
        try:
            while event is not None:
                yield line(event)
                event = await self._steps.get()
            yield await _end(doing, last)
        finally:  # whoever reads this broke off, or it is done
            self.stop.set()


async def _end(doing: asyncio.Task[T], last: Callable[[T], bytes]) -> bytes:
    try:
        return last(await doing)
    except Left:
        return b""
    except Exception as error:
        told = error if isinstance(error, MmxError) else unexpected(error)
        return line({"event": "error", "schema": SCHEMA, **told.as_dict()})


def line(event: dict[str, Any]) -> bytes:
    """An event as a line."""
    return json.dumps(event).encode() + b"\n"


class Tickets:
    """The jobs in work that may be ended, by what who asked for them calls them."""

    def __init__(self) -> None:
        self._jobs: dict[str, Stepping[Any]] = {}

    @contextmanager
    def kept(self, job: Stepping[Any]) -> Iterator[None]:
        """Inside, the job is found by its ticket. Raises UsageError for one that is another job's."""
        ticket = job.ticket
        if ticket is not None and ticket in self._jobs:
            raise UsageError(f"ticket={ticket}: a job that is in work has it")
        if ticket is not None:
            self._jobs[ticket] = job
        try:
            yield
        finally:
            if ticket is not None:
                del self._jobs[ticket]

    def stop(self, ticket: str) -> bool:
        """End a job with what is best by then; whether there is one."""
        job = self._jobs.get(ticket)
        if job is not None:
            job.stop.set()
        return job is not None

    async def do(self, line: Line, job: Stepping[T]) -> T:
        """What the job returns or raises, once it is its turn. It is ended where who asked left."""
        with self.kept(job):
            return await line.do(Work(job.run, job.left, job.stop.set))
