"""How far something is: who is told, and steps as a bar on a terminal, or as a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Told = Callable[[int, int], None]  # is told how many are done, or bytes are there, and of how many
MAIN = ("val_top1", "val_recall_at_1", "val_gender", "val_chance")  # of many metrics, what the line has room for


class Progress:
    """Shows step, loss, validation metrics and throughput on stderr."""

    def __init__(self, name: str, total: int, done: int, batch_size: int, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True, quiet=quiet)
        self.name, self.total, self.done, self.batch_size = name, total, done, batch_size
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=quiet or not sys.stderr.isatty(),
        )
        self.task = self.bar.add_task(name, total=total, completed=done, note="")
        self.start = self.printed = time.monotonic()
        self.rate = 0.0  # samples a second

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, step: int, parts: dict[str, float], metrics: dict[str, float]) -> None:
        """Show the state after `step` steps."""
        now = time.monotonic()
        self.rate = (step - self.done) * self.batch_size / max(now - self.start, 1e-9)
        shown = {key: value for key, value in metrics.items() if len(metrics) < 6 or key in MAIN}
        took = (now - self.start) / max(step - self.done, 1)
        note = (
            " ".join(f"{key} {value:.4g}" for key, value in (parts | shown).items()) + f" {pace(took, self.batch_size)}"
        )
        self.bar.update(self.task, completed=step, note=note)
        if not sys.stderr.isatty() and (now - self.printed > 30 or step == self.total):
            self.printed = now
            self.console.print(f"{self.name} {step}/{self.total} {note}", soft_wrap=True, highlight=False)


def pace(seconds: float, batch_size: int) -> str:
    """How fast steps of so many seconds are, in what is easily read: samples a second, or seconds a step."""
    rate = batch_size / max(seconds, 1e-9)
    return f"{rate:.0f}/s" if rate >= 10 else f"{seconds:.2g} s a step"
