"""What a terminal shows of a translation: its pictures, and of a batch how far it is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from mmx.declared import Option
from mmx.options import Saying
from mmx.progress import Told

WIDTH = 36  # characters, of a picture
PICTURES = 4  # of one translation
T = TypeVar("T")


@dataclass(frozen=True)
class Showing(Saying):
    """What a command says, and whether it shows what it made."""

    no_preview: Annotated[
        bool, Option("--no-preview", help="Don't show results in the terminal. Pipes and files never get them.")
    ] = False


def in_colour(stream: Any) -> bool:
    """Whether a stream is a terminal that shows blocks in colour, and whose owner wants that (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    return (stream.encoding or "").lower().startswith("utf")


def preview(results: Sequence[bytes]) -> None:
    """Show results, PNG or WAV, on stderr where that is a terminal: a sound as its spectrogram. GIFs are not shown."""
    if not in_colour(sys.stderr):
        return
    from mmx.media.terminal import drawn, protocol

    how, columns = protocol(os.environ), min(WIDTH, shutil.get_terminal_size().columns)
    for data in results[:PICTURES]:
        picture = _spectrogram(data) if data[:4] == b"RIFF" else data
        if picture[:4] == b"\x89PNG":
            print(drawn(picture, how, columns), file=sys.stderr, flush=True)


def _spectrogram(data: bytes) -> bytes:
    from mmx.media.audio import read_audio
    from mmx.media.image import png_bytes
    from mmx.media.show import View, draw_sound

    return png_bytes(draw_sound(read_audio(data, sample_rate=None), View(width=360, bands=48)))


@contextmanager
def counting(*, shown: bool, of_bytes: bool = False) -> Iterator[Told | None]:
    """What is told how many are done, of how many, and shows it with the time that is left; None without a terminal.
    of_bytes: that are fetched, with how fast they come."""
    if not shown or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counted = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    columns = (BarColumn(), *counted, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def progress(items: Iterable[T], total: int, *, shown: bool) -> Iterator[Iterator[T]]:
    """The items, `total` in all, one after the other, and on a terminal how many are done and how long the rest will
    take."""
    with counting(shown=shown and total > 1) as told:
        yield iter(items) if told is None else _counted(items, total, told)


def _counted(items: Iterable[T], total: int, told: Told) -> Iterator[T]:
    told(0, total)
    for number, item in enumerate(items, 1):
        yield item
        told(number, total)
