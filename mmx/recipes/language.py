"""What `mmx train-lm` is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.errors import UsageError
from mmx.network import Network
from mmx.options import FREE, Device, Quiet, Seed
from mmx.recipes.base import Minutes, Notes, RunFolder

HEAD = 64  # channels of an attention head


def refuse_missing(option: str, files: Iterable[Path]) -> None:
    """Raise UsageError for a file of an option that is not there."""
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UsageError(f"{option} {missing}: no such file")


@dataclass(frozen=True)
class Captions:
    """What a language model learns from."""

    captions: Annotated[
        list[Path],
        typer.Option(metavar="FILE", show_default=False, help="Captions, one a line; may be given several times."),
    ] = field(metadata=FREE)

    def check_captions(self) -> None:
        """Raise UsageError for a file that is not there."""
        refuse_missing("--captions", self.captions)


@dataclass(frozen=True)
class Words:
    """What else it learns from: captions of sounds, names; and its vocabulary."""

    sounds: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Captions of sounds, one a line: what begins as the sound of something goes on like these, what "
            "begins as an image of it like --captions.",
        ),
    ] = field(default_factory=list, metadata=FREE)
    data: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="A folder with labelled photos (images-*.tar): put the names of what they show into the captions' "
            "frames, too.",
        ),
    ] = field(default=None, metadata=FREE)
    tokenizer: Annotated[
        Optional[str],
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Whose vocabulary to use: an image decoder's or any folder with a tokenizer.json. The space that is "
            "to guide the model should have the same one: captions are then found faster. Default: the starter's.",
        ),
    ] = field(default=None, metadata=FREE)
    vocabulary: Annotated[
        Optional[int],
        typer.Option(min=300, show_default=False, help="Learn a vocabulary of this size from the captions instead."),
    ] = None


@dataclass(frozen=True)
class Size:
    """How large a language model is."""

    layers: Annotated[int, typer.Option(min=1, max=64, help="Layers of the transformer.")] = 4
    width: Annotated[int, typer.Option(min=HEAD, max=4096, help=f"Its channels, a multiple of {HEAD}.")] = 256
    length: Annotated[int, typer.Option(min=8, max=4096, help="Tokens of the longest text that it reads.")] = 48


@dataclass(frozen=True)
class Fitting(Minutes):
    """How long a language model is trained, and at what rate."""

    init: Annotated[
        Optional[Path],
        typer.Option(metavar="LM", show_default=False, help="Start from what fits of this model's weights."),
    ] = field(default=None, metadata=FREE)
    max_steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = field(default=4000, metadata=FREE)
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences of a step.")] = field(default=64, metadata=FREE)
    lr: Annotated[float, typer.Option(min=0.0, help="The highest learning rate.")] = field(default=2e-3, metadata=FREE)
    seed: Seed = field(default=0, metadata=FREE)


@dataclass(frozen=True)
class LanguageOptions(Quiet, Notes, Network, Device, Fitting, Size, Words, RunFolder, Captions):
    """Everything `mmx train-lm` can be asked for."""

    def check(self) -> None:
        """Raise UsageError for what is not there or does not go together, before any work."""
        self.check_captions()
        refuse_missing("--sounds", self.sounds)
        if self.data is not None and not self.data.is_dir():
            raise UsageError(f"--data {self.data}: no such folder")
        if self.width % HEAD:
            raise UsageError(f"--width {self.width}: heads are of {HEAD} channels", hint=f"a multiple of {HEAD}")
        if self.tokenizer is not None and self.vocabulary is not None:
            raise UsageError("--tokenizer and --vocabulary both say what the vocabulary is", hint="leave one out")
        if self.init is not None and not (self.init / "model.safetensors").is_file():
            raise UsageError(f"--init {self.init}: no model folder")
        self.check_folder()
