"""`mmx translate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Optional

from mmx.cli.preview import Showing
from mmx.cli.takes import takes
from mmx.cli.translate import Request, Strictness, carry_out
from mmx.declared import Option
from mmx.errors import ModelError, UsageError
from mmx.media.files import Source, texts
from mmx.media.stores import expand
from mmx.models.store import locate, missing
from mmx.network import Spread
from mmx.options import Decoder, Encoder, Excerpt, Files, Models, Pictures, Placement, Settings, SizedSampling
from mmx.tasks import Task
from mmx.tasks import task as find_task


@dataclass(frozen=True)
class AnyModels:
    """Which models are used."""

    bridge: Annotated[str, Option("--bridge", metavar="RUN", show_default=False, help="What mmx train-bridge made.")]
    decoder: Decoder = None
    encoder: Encoder = None

    def task(self) -> Task:
        """What the bridge is for. Raises UsageError, ModelError."""
        if missing(self.bridge):
            raise UsageError(f"--bridge {missing(self.bridge)}: no such model folder")
        folder = locate(self.bridge, "sound2img", "bridge").folder
        try:
            name = json.loads((folder / "config.json").read_text(encoding="utf8"))["task"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ModelError(f"{self.bridge} is not a bridge: it has no config.json with a task") from None
        return find_task(name, having="trainer")


@dataclass(frozen=True)
class Voice:
    """How speech is said."""

    voice: Annotated[
        Optional[str], Option(show_default=False, help="Of a bridge that speaks: one of the decoder's voices.")
    ] = None
    speed: Annotated[float, Option(min=0.25, max=4.0, help="Of a bridge that speaks: 2 is twice as fast.")] = 1.0


@takes
def translate(
    files: Files,
    models: AnyModels,
    output: Pictures,
    sampling: SizedSampling,
    voice: Voice,
    excerpt: Excerpt,
    strictness: Strictness,
    placement: Placement,
    spread: Spread,
    saying: Showing,
) -> None:
    """Translate by a bridge that you trained, from whatever it takes into whatever its decoder makes.

    mmx translate edges/ --bridge runs/array2img -o pictures/

    mmx translate "a red car" --bridge runs/text2face -o face.png
    """
    task = models.task()
    speaks = task.target.modality == "sound"
    if output.output is not None and output.output.lower().endswith(".gif"):
        raise UsageError("this makes no animation", hint="write .png")
    _refuse(speaks=speaks, grid=output.grid, sampling=sampling, voice=voice)
    request = Request(
        task.name,
        _sources(task, files.inputs),
        output=output,
        models=Models(models.bridge, models.decoder, models.encoder),
        settings=Settings.of(sampling, voice, excerpt, placement),
        saying=saying,
        spread=spread,
        strict=strictness.strict,
        layout="grid" if output.grid else "single",
        suffix=".wav" if speaks else ".png",
    )
    carry_out(request)


def _sources(task: Task, inputs: list[str]) -> list[Source]:
    """Texts are given as they are, everything else as files."""
    return texts(inputs) if task.source.modality == "text" else expand(inputs, task.source.modality)


def _refuse(*, speaks: bool, grid: bool, sampling: SizedSampling, voice: Voice) -> None:
    """Raise UsageError for an option that has no meaning for what the decoder makes."""
    drawing = {"--grid": grid or None, "--steps": sampling.steps, "--guidance": sampling.guidance}
    drawing["--size"] = sampling.size
    speaking = {"--voice": voice.voice, "--speed": None if voice.speed == 1.0 else voice.speed}
    for option, value in (drawing if speaks else speaking).items():
        if value is not None:
            made = "speech" if speaks else "pictures"
            raise UsageError(f"{option}: this bridge's decoder makes {made}", hint="leave it out")
