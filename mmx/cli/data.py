"""`mmx data`: making and checking training data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.options import Json, Quiet
from mmx.errors import InputError, UsageError

app = typer.Typer(no_args_is_help=True, help="Make and check training data.")


@app.callback()
def _root() -> None:
    """Make and check training data."""


@app.command("speak")
def speak(
    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds images-*.tar with `words` in each .json.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", show_default=False, help="A new folder for spoken-*.tar.")
    ],
    voice: Annotated[
        Optional[list[str]],
        typer.Option(show_default=False, help="A voice of flite; several may be given. Default: slt, rms."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Let flite speak captions of photos: the corpus of the speech decoder and of img2speech.

    mmx data speak photos/ -o spoken/ --voice slt --voice rms
    """
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder")
    if list(output.glob("spoken-*.tar")):
        raise UsageError(f"{output} already holds a corpus", hint="give a new folder")
    from mmx.training.spoken import make_corpus

    count = make_corpus(data, output, voice or ["slt", "rms"])
    if not quiet:
        print(f"{output}: {count} utterances", file=sys.stderr)


@app.command("check")
def check_data(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What --data of train-bridge takes.", show_default=False)],
    task: Annotated[str, typer.Option(help="sound2img, voice2face or img2speech.")] = "sound2img",
    workers: Annotated[int, typer.Option(min=1, help="Files read at the same time.")] = 4,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read every sample once, and name those that are unreadable, silent, too short, duplicate, leaking into val or alone.

    mmx data check pairs/ --task sound2img

    Exits with 3 where more than 5 % can't be used, as training would.
    """
    tasks = ("sound2img", "voice2face", "img2speech")
    if task not in tasks:
        raise UsageError(f"--task {task}: no such task", hint=f"there are: {', '.join(tasks)}")
    if "://" not in data and "{" not in data and "*" not in data and not Path(data).exists():
        raise UsageError(f"{data}: no such file or folder")
    from mmx.training.check import check
    from mmx.training.pairs import MAX_BAD

    found = check(data, task, workers)
    total = sum(found.counts.values())
    if as_json:
        print(json.dumps({"schema": "mmx.check/1", "task": task, "counts": found.counts, "problems": found.names}))
    elif not quiet:
        _print(found)
    if found.unusable > MAX_BAD * total:
        raise InputError(
            f"{found.unusable} of {total} samples can't be used",
            hint="a training stops when more than 5 % of a side can't",
        )


def _print(found) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmx.training.check import PROBLEMS

    console = Console()
    console.print(", ".join(f"{count} {name}" for name, count in found.counts.items()))
    table = Table("problem", "count", "such as", "what it means")
    for problem, meaning in PROBLEMS.items():
        names = found.names[problem]
        table.add_row(problem, str(len(names)), ", ".join(names[:3]), meaning)
    console.print(table)
