"""What `mmx train-bridge` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Optional, Self

import typer

from mmx.errors import UsageError
from mmx.extras import require
from mmx.network import Network
from mmx.options import FREE, Decoder, Device, Encoder, Quiet, Seed
from mmx.recipes.base import Notes, PairedData, RunFolder, TaskName, existing
from mmx.tasks import COMPARING
from mmx.tasks import task as find_task


@dataclass(frozen=True)
class Design:
    """What a bridge is made of. decoder_name, encoder_name: of the frozen models on both sides of it."""

    decoder_name: Decoder = field(default=None, metadata=FREE)
    encoder_name: Encoder = field(default=None, metadata=FREE)
    init_name: Annotated[
        Optional[str],
        typer.Option(
            "--init",
            metavar="BRIDGE",
            show_default=False,
            help="Start from what fits of this bridge's weights; it may be of another decoder. starter: the one that "
            "came with mmx.",
        ),
    ] = field(default=None, metadata=FREE)
    lora: Annotated[
        int,
        typer.Option(
            "--lora",
            min=0,
            max=256,
            help="Adapt --encoder, too: the rank of the corrections to its attention layers; 0: none.",
        ),
    ] = 0
    architecture: Annotated[
        str,
        typer.Option("--architecture", help="What hears log-mels: cnn or transformer; with --encoder a head on it."),
    ] = "cnn"
    norm: Annotated[str, typer.Option("--norm", help="What the CNN normalises by: group or batch.")] = "group"
    source: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="sound, or sound+image: a second source, both together or each alone. Default: the task's one.",
        ),
    ] = ""
    as_: Annotated[
        Optional[str],
        typer.Option(
            "--as",
            show_default=False,
            help="What arrays hold. depth: distances, in whole millimetres or in metres, seen as disparity up to 10 m. "
            "drawing: lines of any pen on any paper, which are varied in training as other hands would draw them.",
        ),
    ] = None
    dropout: Annotated[
        Optional[float], typer.Option(min=0.0, max=0.9, show_default=False, help="Default: the architecture's.")
    ] = None


@dataclass(frozen=True)
class Objective:
    """What a bridge is trained by."""

    loss: Annotated[
        Optional[str],
        typer.Option(
            show_default=False,
            help="infonce (cosine, learned temperature), infonce-l2 (Sound2Scene's), mse, cosine; for sound2img also "
            "prior (by the diffusion prior alone); for voice2face speech2face, for img2speech units. "
            "Default: infonce, speech2face, units.",
        ),
    ] = None
    smoothing: Annotated[float, typer.Option(min=0.0, max=0.9, help="Label smoothing of the contrastive losses.")] = 0.0
    hard_negatives: Annotated[
        int, typer.Option(min=0, help="Contrast with this many of the hardest negatives only; 0: all.")
    ] = 0
    teacher: Annotated[
        Optional[str],
        typer.Option(
            show_default=False,
            help="voice2face: a frozen network that also teaches the bridge to tell voices apart, in training alone: "
            "ge2e, of the package Resemblyzer.",
        ),
    ] = None
    normalize_targets: Annotated[
        bool,
        typer.Option(
            "--normalize-targets",
            help="Subtract the targets' mean and divide by their standard deviation before comparing with them.",
        ),
    ] = False


@dataclass(frozen=True)
class Schedule:
    """How long a bridge is trained, and at what rate. None: as its task is usually trained."""

    prior_steps: Annotated[
        int, typer.Option(min=0, help="Steps of its diffusion prior, by which one source gives many results; 0: none.")
    ] = field(default=6000, metadata=FREE)
    max_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Default: 2500; of voices 1500.")
    ] = field(default=None, metadata=FREE)
    max_minutes: Annotated[
        Optional[float], typer.Option(min=0.01, show_default=False, help="Stop, and save, after this long.")
    ] = field(default=None, metadata=FREE)
    batch_size: Annotated[
        Optional[int], typer.Option(min=2, show_default=False, help="Of each process. Default: 64; of voices 48.")
    ] = field(default=None, metadata=FREE)
    accumulate: Annotated[int, typer.Option(min=1, help="Batches that make one step.")] = field(
        default=1, metadata=FREE
    )
    lr: Annotated[
        Optional[float],
        typer.Option(min=0.0, show_default=False, help="The highest learning rate. Default: the task's."),
    ] = field(default=None, metadata=FREE)
    metric: Annotated[
        Optional[str],
        typer.Option(
            show_default=False, help="Keep the weights that are best by this metric of val. Default: the last."
        ),
    ] = field(default=None, metadata=FREE)
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after this many validations without a better --metric; 0: never.")
    ] = field(default=0, metadata=FREE)
    mixed_precision: Annotated[str, typer.Option(help="bf16 or no.")] = field(default="bf16", metadata=FREE)
    seed: Seed = field(default=0, metadata=FREE)

    @property
    def schedule(self) -> dict[str, Any]:
        """What was asked of the loop's settings."""
        names = ("max_steps", "batch_size", "accumulate", "lr", "metric", "patience", "seed")
        asked = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return asked | {"bf16": self.mixed_precision == "bf16"}

    @property
    def minutes(self) -> float:
        """How long all stages may take together."""
        return self.max_minutes or math.inf


@dataclass(frozen=True)
class Logging:
    """What a training keeps and says, whatever it trains."""

    cache: Annotated[
        Optional[Path],
        typer.Option(
            show_default=False, help="Where features and targets are kept. Default: MMX_CACHE or the user's cache."
        ),
    ] = field(default=None, metadata=FREE)
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard, into RUN.")] = field(
        default=False, metadata=FREE
    )
    events: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")] = field(
        default=False, metadata=FREE
    )


@dataclass(frozen=True)
class BridgeOptions(
    Quiet, Notes, Network, Device, Logging, Schedule, Objective, Design, RunFolder, PairedData, TaskName
):
    """Everything `mmx train-bridge` can be asked for that its training takes."""

    def settled(self) -> Self:
        """With the task's own loss where none was chosen. Raises UsageError for what does not go together."""
        row = find_task(self.task, having="trainer")
        loss = self.loss or row.losses[0]
        if loss not in row.losses:
            raise UsageError(f"--loss {loss}: {self.task} has no such loss", hint=" or ".join(row.losses))
        if self.architecture not in ("cnn", "transformer"):
            raise UsageError(f"--architecture {self.architecture}: no such architecture", hint="cnn or transformer")
        if self.norm not in ("group", "batch"):
            raise UsageError(f"--norm {self.norm}: no such normalisation", hint="group or batch")
        if self.source not in ("", "sound", "sound+image") or (self.source and self.task != "sound2img"):
            raise UsageError(
                f"--source {self.source}: {self.task} has no such sources", hint="sound2img: sound or sound+image"
            )
        if self.as_ not in (None, "depth", "drawing"):
            raise UsageError(
                f"--as {self.as_}: arrays are seen as they are, or as one of two kinds", hint="--as depth, --as drawing"
            )
        if self.as_ and row.source.modality != "array":
            raise UsageError(f"--as {self.as_}: {self.task} takes no arrays", hint="array2img does")
        if self.lora and (self.encoder_name is None or row.source.modality != "sound"):
            raise UsageError("--lora adapts an audio encoder, and there is none", hint="--encoder wavlm --lora 8")
        if self.teacher and (self.teacher != "ge2e" or self.task != "voice2face"):
            raise UsageError(f"--teacher {self.teacher}: {self.task} has no such teacher", hint="voice2face: ge2e")
        if self.teacher and (self.architecture != "cnn" or self.encoder_name is not None):
            raise UsageError(
                "--teacher ge2e teaches a CNN of the bridge's own", hint="leave --encoder and the like out"
            )
        if self.normalize_targets and loss not in COMPARING:
            raise UsageError(f"--loss {loss} does not compare with normalised targets", hint=" or ".join(COMPARING))
        if self.mixed_precision not in ("bf16", "no"):
            raise UsageError(f"--mixed-precision {self.mixed_precision}: no such precision", hint="bf16 or no")
        if self.patience and not self.metric:
            raise UsageError("--patience needs a --metric to watch", hint="--metric val_recall_at_1")
        if self.tensorboard:
            require("--tensorboard", "tensorboard")
        existing(self.data)
        self.check_folder()
        return replace(self, loss=loss)
