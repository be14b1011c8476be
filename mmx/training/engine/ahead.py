"""The next batch is made while a step runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

Drawn = tuple[dict[str, Tensor], torch.Generator]  # a batch, and the generator as the batch has left it


class Ahead:
    """`draw(number)`, asked for one number after the other up to `end`, each drawn in the background while the one
    before is used.

    What comes out is the same as without: a batch is a function of its number. What `draw` raises is raised where the
    batch is asked for, and not before.
    """

    def __init__(self, draw: Callable[[int], Drawn], end: int) -> None:
        self.draw, self.end = draw, end
        self.pool = ThreadPoolExecutor(1, "batches")
        self.next: tuple[int, Future[Drawn]] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, number: int) -> Drawn:
        """Batch `number`; the drawing of the one after it begins."""
        ready = self.next[1] if self.next and self.next[0] == number else self.pool.submit(self.draw, number)
        self.next = None
        drawn = ready.result()
        if number + 1 < self.end:
            self.next = number + 1, self.pool.submit(self.draw, number + 1)
        return drawn

    def settle(self) -> None:
        """Until nothing is drawn in the background: before work that may share a tokenizer or a decoder with `draw`."""
        if self.next:
            wait([self.next[1]])
