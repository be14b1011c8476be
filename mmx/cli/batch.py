"""Many inputs, one after the other: a bad one does not stop the rest, and who stops them learns what is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from mmx.cli.preview import progress
from mmx.errors import DiskError, Interrupted, MmxError, ModelError, PartialFailure, UsageError
from mmx.faults import unexpected

ENDING = (UsageError, ModelError, DiskError)  # errors of no single input
T = TypeVar("T")


def each(
    items: Iterable[T],
    work: Callable[[T], None],
    *,
    name: Callable[[T], str],
    failed: Callable[[T, MmxError], None],
    go_on: str = "",
    shown: bool = False,
) -> None:
    """`work` on every item, whatever is wrong with others; `failed` is told of those that can't be done.

    go_on: how a batch that was interrupted is gone on with. shown: whether a terminal shows how far it is.

    Raises the error of the only one, those that the others would meet, too, Interrupted, and PartialFailure in the end.
    """
    items, failures = list(items), 0
    with progress(items, shown=shown) as going:
        for number, item in enumerate(going):
            try:
                work(item)
            except KeyboardInterrupt:
                if len(items) == 1:
                    raise
                done = f"{number - failures} of {len(items)} inputs are done"
                raise Interrupted(f"interrupted: {done}{f', {failures} failed' if failures else ''}", go_on) from None
            except Exception as error:
                if os.environ.get("MMX_DEBUG") == "1":
                    raise
                failure = error if isinstance(error, MmxError) else unexpected(error, name(item))
                if len(items) == 1 or isinstance(error, (*ENDING, ImportError)):
                    raise failure from None
                failures += 1
                failed(item, failure)
    if failures:
        raise PartialFailure(f"{failures} of {len(items)} inputs failed; the others were done")
