"""`mmx data`: making and checking training data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.options import BridgeOption, DecoderOption, Device, Json, Quiet
from mmx.errors import InputError, UsageError
from mmx.media.formats import SUFFIXES
from mmx.tasks import task as find_task

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
    from mmx.data.spoken_captions import make_corpus

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
    find_task(task, having="keys")
    if "://" not in data and "{" not in data and "*" not in data and not Path(data).exists():
        raise UsageError(f"{data}: no such file or folder")
    from mmx.data.check import check
    from mmx.data.items import MAX_BAD

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

    from mmx.data.check import PROBLEMS

    console = Console()
    console.print(", ".join(f"{count} {name}" for name, count in found.counts.items()))
    table = Table("problem", "count", "such as", "what it means")
    for problem, meaning in PROBLEMS.items():
        names = found.names[problem]
        table.add_row(problem, str(len(names)), ", ".join(names[:3]), meaning)
    console.print(table)


def pairs(
    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEO...", help="Videos, or folders of videos.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", show_default=False, help="A new folder for the pairs.")
    ],
    every: Annotated[float, typer.Option(min=0.05, metavar="s", help="Look at a moment each so many seconds.")] = 1.0,
    window: Annotated[float, typer.Option(min=0.5, metavar="s", help="Seconds of sound around it.")] = 3.0,
    top: Annotated[int, typer.Option(min=1, help="Keep so many moments of each video.")] = 3,
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cut videos into pairs of sound and frame, and keep the moments in which both belong together.

    mmx pairs videos/ -o pairs/ && mmx train-bridge sound2img --data pairs/pairs.jsonl -o run/

    A bridge scores each moment: the starter, or one that you trained. Silent and flat moments, all but the best of a video, and outliers
    among the best are dropped.
    """
    found = [
        file
        for given in videos
        for file in (
            sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES["video"]) if given.is_dir() else [given]
        )
    ]
    missing = next((path for path in found if not path.exists()), None)
    if missing or not found:
        raise UsageError(f"{missing or videos[0]}: no {'such file' if missing else 'videos here'}")
    if (output / "pairs.jsonl").exists():
        raise UsageError(f"{output} already holds pairs", hint="give a new folder")
    from mmx.data.video_pairs import cut
    from mmx.translate.load import load

    done = cut(
        found,
        output,
        load("sound2img", bridge=bridge, decoder=decoder, device=device),
        every=every,
        window=window,
        top=top,
    )
    if as_json:
        print(
            json.dumps(
                {"schema": "mmx.pairs/1", "kept": done.kept, "dropped": done.dropped, "unreadable": done.unreadable}
            )
        )
    elif not quiet:
        dropped = ", ".join(f"{count} {reason}" for reason, count in done.dropped.items())
        print(f"{output / 'pairs.jsonl'}: {done.kept} pairs; dropped: {dropped}", file=sys.stderr)
        for line in done.unreadable:
            print(f"unreadable: {line}", file=sys.stderr)
    if not done.kept:
        raise InputError("no moment of these videos is usable")
