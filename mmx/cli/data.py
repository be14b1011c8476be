"""`mmx data`: making and checking training data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.options import Quiet
from mmx.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Make training data.")


@app.callback()
def _root() -> None:
    """Make training data."""


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
