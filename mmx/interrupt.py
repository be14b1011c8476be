"""Ctrl-C between two steps, and not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WISH: ContextVar[threading.Event | None] = ContextVar("wish", default=None)


@contextmanager
def stopped_by(wish: threading.Event) -> Iterator[None]:
    """Inside, an event that is set is a wish as Ctrl-C is one: for threads, where signals do not arrive."""
    before = _WISH.set(wish)
    try:
        yield
    finally:
        _WISH.reset(before)


class Interruptible:
    """Inside, Ctrl-C or a polite kill is a wish: `asked` turns true, and whoever works looks at it where stopping loses
    nothing. The second one interrupts at once. In threads, where signals do not arrive, nothing changes."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether it is to end."""
        wish = _WISH.get()
        return self._asked or (wish is not None and wish.is_set())

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
