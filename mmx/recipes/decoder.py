"""What `mmx train-decoder` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Optional, Self

import typer

from mmx.errors import UsageError
from mmx.network import Network
from mmx.options import Device, Quiet, Seed
from mmx.recipes.base import Notes, RunFolder

# what can be trained: kind → family, the default first → the stages whose steps can be chosen
STAGES = {
    "image": {"diffusion": ("space", "codec", "denoiser", "finish"), "gan": ("space", "gan")},
    "face": {"diffusion": ("space", "codec", "denoiser", "finish"), "gan": ("gan",)},
    "speech": {"units": ("codec", "vocoder")},
    "text": {"text": ("text",)},
}


@dataclass(frozen=True)
class DecoderData:
    """What is trained, and on what."""

    what: Annotated[str, typer.Argument(metavar="WHAT", help="image, face, speech or text.", show_default=False)]
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", show_default=False, help="The folder with the training data.")
    ]


@dataclass(frozen=True)
class StageSteps:
    """How long each stage of a decoder is trained. None: as it usually is."""

    space_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of the space, and so of the teacher.")
    ] = None
    codec_steps: Annotated[Optional[int], typer.Option(min=1, show_default=False, help="Steps of the autoencoder.")] = (
        None
    )
    denoiser_steps: Annotated[
        Optional[int],
        typer.Option(
            "--denoiser-steps", "--max-steps", min=1, show_default=False, help="Steps of the diffusion model."
        ),
    ] = None
    finish_steps: Annotated[
        Optional[int],
        typer.Option(
            min=1, show_default=False, help="Steps that fit the autoencoder's decoder to the diffusion model."
        ),
    ] = None
    vocoder_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of a speech decoder's vocoder.")
    ] = None
    gan_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of the generator and its critic.")
    ] = None

    text_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of an image decoder's text tower.")
    ] = None

    @property
    def steps(self) -> dict[str, int]:
        """Stage → the steps that were asked for."""
        given = {option.name: getattr(self, option.name) for option in fields(StageSteps)}
        return {name.removesuffix("_steps"): count for name, count in given.items() if count is not None}


@dataclass(frozen=True)
class DecoderOptions(Quiet, Notes, Network, Device, StageSteps, RunFolder, DecoderData):
    """Everything `mmx train-decoder` can be asked for."""

    family: Annotated[
        Optional[str],
        typer.Option(
            "--family",
            show_default=False,
            help="For image and face: diffusion, or gan, which draws in one step. Default: diffusion.",
        ),
    ] = None
    init: Annotated[
        Optional[Path],
        typer.Option(
            "--init",
            metavar="DECODER",
            show_default=False,
            help="--family gan, speech: go on from its weights. text: the decoder whose texts are trained anew.",
        ),
    ] = None
    teacher: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DECODER",
            show_default=False,
            help="Take the teacher of this decoder instead of training one: its bridges stay valid.",
        ),
    ] = None
    captions: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="text: captions, one a line, that sentences are made of.",
        ),
    ] = field(default_factory=list)
    seed: Seed = 0

    @property
    def own_teacher(self) -> Path | None:
        """The folder of the teacher that is taken."""
        return None if self.teacher is None else self.teacher / "teacher"

    @property
    def of_faces(self) -> bool:
        """Whether --init is a face decoder, whose texts are about what faces are labelled with."""
        about = None if self.init is None else self.init / "mmx.json"
        return about is not None and about.is_file() and '"family": "face"' in about.read_text(encoding="utf8")

    def settled(self) -> Self:
        """With the default family where none was chosen. Raises UsageError for what does not go together."""
        if self.what not in STAGES:
            raise UsageError(f"no decoder is called {self.what}", hint=f"there are: {', '.join(STAGES)}")
        families = STAGES[self.what]
        family = self.family or next(iter(families))
        if family not in families:
            raise UsageError(f"--family {family}: {self.what} has no such family", hint=" or ".join(families))
        if not self.data.is_dir():
            raise UsageError(f"--data {self.data}: no such folder")
        self.check_folder()
        self._check_models(family)
        for stage in self.steps:
            if stage not in families[family]:
                there = ", ".join(f"--{name}-steps" for name in families[family])
                raise UsageError(f"--{stage}-steps: {self.what} has no such stage", hint=f"there are: {there}")
        return replace(self, family=family)

    def _check_models(self, family: str) -> None:
        for option, folder, families in (
            ("--teacher", self.teacher, ("diffusion", "gan")),
            ("--init", self.init, ("gan", "text", "units")),
        ):
            if folder is not None and family not in families:
                raise UsageError(
                    f"{option} {folder}: {self.what} of family {family} takes none", hint=" or ".join(families)
                )
            part = "units" if family == "units" else "teacher"
            if folder is not None and not (folder / part).is_dir():
                raise UsageError(f"{option} {folder}: no decoder folder with a {part}/ in it")
        if (self.what, family) == ("face", "gan") and self.teacher is None:
            raise UsageError(
                "a generator of faces wants --teacher DECODER",
                hint="it draws in the space of a finished face decoder, such as the starter's",
            )
        self._check_captions(family)

    def _check_captions(self, family: str) -> None:
        if family != "text":
            if self.captions:
                raise UsageError(f"--captions {self.captions[0]}: {self.what} takes none", hint="leave it out")
            return
        if self.init is None:
            raise UsageError("text wants --init DECODER", hint="the decoder is one of images or of faces")
        if self.of_faces:
            if self.captions or self.steps:
                raise UsageError(
                    "the texts of faces are fitted to labels", hint="leave --captions and --text-steps out"
                )
            return
        if not (self.init / "teacher" / "text_encoder").is_dir():
            raise UsageError(f"--init {self.init}: its teacher reads no texts", hint="give an image or a face decoder")
        if not self.captions:
            raise UsageError("the texts of images want --captions FILE", hint="one caption a line")
        missing = next((file for file in self.captions if not file.is_file()), None)
        if missing is not None:
            raise UsageError(f"--captions {missing}: no such file")
