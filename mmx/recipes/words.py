"""What `mmx train-words` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Optional

import typer

from mmx.errors import UsageError
from mmx.network import Network
from mmx.options import FREE, Device, Quiet, Seed
from mmx.recipes.base import Notes, RunFolder
from mmx.recipes.language import Captions


@dataclass(frozen=True)
class Windowing:
    """What a word's vector learns from."""

    window: Annotated[int, typer.Option(min=1, max=100, help="Words on either side that a word is to foretell.")] = 5
    negatives: Annotated[
        int, typer.Option(min=1, max=1000, help="Words that are drawn for each true one, to be told from it.")
    ] = 10
    min_count: Annotated[int, typer.Option(min=1, help="Leave out words that are there less often.")] = 5
    often: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Drop words whose share of all is larger now and then; 0 drops none (subsampling)."
        ),
    ] = 1e-3
    dim: Annotated[int, typer.Option(min=2, max=4096, help="Numbers in a vector.")] = 128


@dataclass(frozen=True)
class WordFitting:
    """How long vectors are trained, and at what rate."""

    max_steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = field(default=6000, metadata=FREE)
    max_minutes: Annotated[
        Optional[float], typer.Option(min=0.01, show_default=False, help="Stop, and save, after this long.")
    ] = field(default=None, metadata=FREE)
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of words in a step.")] = field(
        default=4096, metadata=FREE
    )
    lr: Annotated[float, typer.Option(min=0.0, help="The highest learning rate.")] = field(default=5e-3, metadata=FREE)
    seed: Seed = field(default=0, metadata=FREE)


@dataclass(frozen=True)
class WordOptions(Quiet, Notes, Network, Device, WordFitting, Windowing, RunFolder, Captions):
    """Everything `mmx train-words` can be asked for."""

    @property
    def minutes(self) -> float:
        """How long it may take."""
        return self.max_minutes or math.inf

    def check(self) -> None:
        """Raise UsageError for what is not there, before any work."""
        missing = next((file for file in self.captions if not file.is_file()), None)
        if missing is not None:
            raise UsageError(f"--captions {missing}: no such file")
        self.check_folder()
