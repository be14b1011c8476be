"""What `mmx train-mapper` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.errors import UsageError
from mmx.network import Network
from mmx.options import FREE, Device, Quiet, Seed
from mmx.recipes.base import Minutes, Notes, RunFolder
from mmx.recipes.editing import Pull


@dataclass(frozen=True)
class Mapped:
    """Toward what, and from what on."""

    text: Annotated[str, typer.Argument(metavar="TEXT", help='As of mmx edit: "an old man".', show_default=False)]
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="DIR", show_default=False, help="Pictures to edit: faces-*.tar or images-*.tar in DIR."
        ),
    ] = field(metadata=FREE)


@dataclass(frozen=True)
class Through:
    """The frozen models that it is trained through."""

    decoder: Annotated[
        Optional[str],
        typer.Option(
            "--decoder",
            metavar="FOLDER",
            show_default=False,
            help="Whose pictures are edited. Default: of texts about faces the starter face decoder, else the image "
            "decoder.",
        ),
    ] = field(default=None, metadata=FREE)
    encoder: Annotated[
        Optional[str],
        typer.Option(
            "--space", metavar="FOLDER", show_default=False, help="The space that guides. Default: the decoder's own."
        ),
    ] = field(default=None, metadata=FREE)


@dataclass(frozen=True)
class Pace(Minutes):
    """How long a mapper is trained, and at what rate."""

    max_steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = field(default=400, metadata=FREE)
    limit: Annotated[int, typer.Option(min=1, help="Pictures of the train split that are looked at.")] = field(
        default=4000, metadata=FREE
    )
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of a step.")] = field(default=8, metadata=FREE)
    lr: Annotated[float, typer.Option(min=0.0, help="The highest learning rate.")] = field(default=1e-3, metadata=FREE)
    seed: Seed = field(default=0, metadata=FREE)


@dataclass(frozen=True)
class MapperOptions(Quiet, Notes, Network, Device, Pace, Pull, Through, RunFolder, Mapped):
    """Everything `mmx train-mapper` can be asked for."""

    def check(self) -> None:
        """Raise UsageError for what is not there, before any work."""
        if not self.text.strip():
            raise UsageError("nothing says what pictures are to become", hint='mmx train-mapper "an old man"')
        if not self.data.is_dir():
            raise UsageError(f"--data {self.data}: no such folder")
        self.check_folder()
