"""Many inputs, one after the other or side by side: a bad one does not stop the rest, and who stops them learns what
is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TypeVar

from mmx.cli.preview import progress
from mmx.errors import DiskError, Interrupted, MmxError, ModelError, PartialFailure, UsageError
from mmx.faults import unexpected

ENDING = (UsageError, ModelError, DiskError)  # errors of no single input
T = TypeVar("T")
R = TypeVar("R")


def each(
    items: Iterable[T],
    work: Callable[[T], R],
    *,
    name: Callable[[T], str],
    failed: Callable[[T, MmxError], None],
    said: Callable[[T, R], None] = lambda item, result: None,
    go_on: str = "",
    shown: bool = False,
    width: int = 1,
) -> None:
    """`work` on every item, whatever is wrong with others; `said` is told of each that is done, `failed` of those that
    can't be, in this thread.

    go_on: how a batch that was interrupted is gone on with. shown: whether a terminal shows how far it is. width: of
    how many items at a time the work is done, in threads.

    Raises the error of the only one, those that the others would meet, too, Interrupted, and PartialFailure in the end.
    """
    items, failures, done = list(items), 0, 0
    try:
        with closing(_outcomes(items, work, width)) as outcomes, progress(outcomes, len(items), shown=shown) as going:
            for item, outcome in going:
                try:
                    said(item, outcome())
                    done += 1
                except Interrupted:
                    raise KeyboardInterrupt from None  # of the batch, whichever item it met
                except Exception as error:
                    if os.environ.get("MMX_DEBUG") == "1":
                        raise
                    failure = error if isinstance(error, MmxError) else unexpected(error, name(item))
                    if len(items) == 1 or isinstance(error, (*ENDING, ImportError)):
                        raise failure from None
                    failures += 1
                    failed(item, failure)
    except KeyboardInterrupt:
        if len(items) == 1:
            raise
        what = f"interrupted: {done} of {len(items)} inputs are done"
        raise Interrupted(f"{what}{f', {failures} failed' if failures else ''}", go_on) from None
    if failures:
        raise PartialFailure(f"{failures} of {len(items)} inputs failed; the others were done")


def _outcomes(items: Sequence[T], work: Callable[[T], R], width: int) -> Iterator[tuple[T, Callable[[], R]]]:
    """Each item, and what gives its result or raises: in their order, or as they are done. Whoever closes this waits
    for what was begun."""
    if width == 1:
        for item in items:
            yield item, partial(work, item)
        return
    with ThreadPoolExecutor(width) as pool:
        waiting = iter(items)
        begun: dict[Future[R], T] = {pool.submit(work, item): item for item in islice(waiting, width)}
        while begun:
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                item = begun.pop(future)
                begun |= {pool.submit(work, following): following for following in islice(waiting, 1)}
                yield item, future.result
