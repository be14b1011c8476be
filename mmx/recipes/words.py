"""What `mmx train-words` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import typer

from mmx.network import Network
from mmx.options import FREE, Device, Quiet, Seed
from mmx.recipes.base import Minutes, Notes, RunFolder
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
class WordFitting(Minutes):
    """How long vectors are trained, and at what rate."""

    max_steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = field(default=6000, metadata=FREE)
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of words in a step.")] = field(
        default=4096, metadata=FREE
    )
    lr: Annotated[float, typer.Option(min=0.0, help="The highest learning rate.")] = field(default=5e-3, metadata=FREE)
    seed: Seed = field(default=0, metadata=FREE)


@dataclass(frozen=True)
class WordOptions(Quiet, Notes, Network, Device, WordFitting, Windowing, RunFolder, Captions):
    """Everything `mmx train-words` can be asked for."""

    def check(self) -> None:
        """Raise UsageError for what is not there, before any work."""
        self.check_captions()
        self.check_folder()
