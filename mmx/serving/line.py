"""One job after the other, in the order in which they came; as many may wait as there is room for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmx.errors import NetworkError

T = TypeVar("T")
ASK = 0.5  # seconds between two looks at whether who asked is still there


class Full(NetworkError):
    """As many jobs wait as may."""


class Left(Exception):
    """Who asked for a job went away before it was begun."""


@dataclass(frozen=True)
class Work(Generic[T]):
    """What somebody waits for. run: computes it, in the models' thread. left: whether nobody waits for it any more: it
    is then not begun, or asked to `stop`."""

    run: Callable[[], T]
    left: Callable[[], Awaitable[bool]]
    stop: Callable[[], None] = lambda: None


class Line:
    """A thread that computes, and what waits for it. `room`: how many jobs may be there at a time."""

    def __init__(self, room: int) -> None:
        self.room, self.waiting, self.done = room, 0, 0
        self.touched = time.monotonic()  # when a job last came or ended
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mmx-models")

    async def do(self, work: Work[T]) -> T:
        """What `work` returns or raises. Raises Full, Left."""
        if self.waiting >= self.room:
            raise Full(f"{self.waiting} jobs wait already", hint="try again soon")
        self.waiting += 1
        self.touched = time.monotonic()
        try:
            future = asyncio.wrap_future(running := self._worker.submit(work.run))
            while not (await asyncio.wait([future], timeout=ASK))[0]:
                if await work.left():
                    if running.cancel():
                        raise Left
                    work.stop()
            return future.result()
        finally:
            self.waiting -= 1
            self.done += 1
            self.touched = time.monotonic()

    def idle_for(self) -> float:
        """Seconds since there was anything to do."""
        return 0.0 if self.waiting else time.monotonic() - self.touched

    def close(self) -> None:
        """Let the thread end."""
        self._worker.shutdown(wait=False, cancel_futures=True)
