"""`mmx train-decoder` and `mmx train-bridge`."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.options import Data, DecoderOption, Device, Quiet
from mmx.errors import UsageError

Run = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="RUN", show_default=False, help="The run's folder. The same command on it resumes."
    ),
]


Notes = Annotated[
    str,
    typer.Option(
        metavar="TEXT", show_default=False, help="For the model card: where the data is from, licences, limits."
    ),
]


def _command(context: typer.Context) -> str:
    """The command line as it can be given again, for the card: paths by their last part."""
    line = context.find_root().obj["line"]
    words = [Path(word).name if Path(word).is_absolute() else word for word in line]
    if "--notes" in words:  # they have their own place
        del words[words.index("--notes") : words.index("--notes") + 2]
    return "mmx " + shlex.join(words)


def _check(data: Path, run: Path) -> None:
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder")
    if run.exists() and not run.is_dir():
        raise UsageError(f"-o {run} is a file", hint="give a folder")


def train_decoder(
    context: typer.Context,
    family: Annotated[str, typer.Argument(help="image, face or speech.", show_default=False)],
    data: Data,
    output: Run,
    space_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of the space, and so of the teacher.")
    ] = None,
    codec_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of the autoencoder.")
    ] = None,
    denoiser_steps: Annotated[
        Optional[int],
        typer.Option(
            "--denoiser-steps", "--max-steps", min=1, show_default=False, help="Steps of the diffusion model."
        ),
    ] = None,
    finish_steps: Annotated[
        Optional[int],
        typer.Option(
            min=1, show_default=False, help="Steps that fit the autoencoder's decoder to the diffusion model."
        ),
    ] = None,
    vocoder_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of a speech decoder's vocoder.")
    ] = None,
    teacher: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DECODER",
            show_default=False,
            help="Take the teacher of this decoder instead of training one: its bridges stay valid.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    notes: Notes = "",
    quiet: Quiet = False,
) -> None:
    """Train a decoder and its teacher from scratch → RUN/decoder.

    DIR holds WebDataset shards of KEY.jpg and KEY.json: images-*.tar (words, synset, concept, split) or faces-*.tar (age, gender,
    split). Stages, each resumable: the space, the autoencoder, the diffusion model and, for faces, the autoencoder's
    decoder fitted to what the diffusion model makes. RUN/*/preview.png shows how far each is.
    For speech it holds spoken-*.tar (mmx data speak) and may hold speech-*.tar; --codec-steps are those of the units.
    """
    if family not in ("image", "face", "speech"):
        raise UsageError(f"no decoder family is called {family}", hint="there are: image, face, speech")
    _check(data, output)
    if teacher is not None and not (teacher / "teacher").is_dir():
        raise UsageError(f"--teacher {teacher}: no decoder folder with a teacher/ in it")
    if family == "speech":
        _train_speech(
            context, data, output, {"units": codec_steps, "vocoder": vocoder_steps}, seed, device, notes, quiet
        )
        return
    from mmx.training.decoder import FAMILIES, DecoderRecipe
    from mmx.training.decoder import train_decoder as train
    from mmx.translate import pick_device

    wanted = {"space": space_steps, "codec": codec_steps, "denoiser": denoiser_steps, "finish": finish_steps}
    steps = {stage: count for stage, count in wanted.items() if count is not None}
    own = None if teacher is None else teacher / "teacher"
    train(
        DecoderRecipe(
            data, output, FAMILIES[family], seed, pick_device(device), steps, own, quiet, _command(context), notes
        )
    )
    print(f"{output / 'decoder'}: use it with --decoder", file=sys.stderr)


def _train_speech(
    context: typer.Context,
    data: Path,
    output: Path,
    steps: dict[str, Optional[int]],
    seed: int,
    device: str,
    notes: str,
    quiet: bool,
) -> None:
    from mmx.training.speech import SpeechRecipe, train_speech_decoder
    from mmx.translate import pick_device

    given = {stage: count for stage, count in steps.items() if count is not None}
    train_speech_decoder(
        SpeechRecipe(
            data, output, seed, pick_device(device), given, quiet=quiet, command=_command(context), notes=notes
        )
    )
    print(f"{output / 'decoder'}: use it with --decoder", file=sys.stderr)


def train_bridge(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="sound2img, voice2face or img2speech.", show_default=False)],
    data: Data,
    output: Run,
    decoder: DecoderOption = None,
    max_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Default: 2500; 1500 for voices, 6000 for speech.")
    ] = None,
    max_minutes: Annotated[
        Optional[float], typer.Option(min=0.01, show_default=False, help="Stop, and save, after this long.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(min=0.0)] = 1.5e-3,
    loss: Annotated[
        Optional[str],
        typer.Option(
            show_default=False,
            help="sound2img: infonce (cosine, learned temperature; default) or infonce-l2 (Sound2Scene's). "
            "voice2face: speech2face (default) or infonce.",
        ),
    ] = None,
    prior_steps: Annotated[
        int, typer.Option(min=0, help="Steps of its diffusion prior, by which one source gives many results; 0: none.")
    ] = 6000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    notes: Notes = "",
    quiet: Quiet = False,
) -> None:
    """Train a bridge into a frozen decoder: paired data → RUN, a folder that --bridge takes.

    DIR holds WebDataset shards: sounds-*.tar and images-*.tar, paired by the `concept` in their .json, or voices-*.tar and faces-*.tar,
    paired by `identity` or else `gender`, or images-*.tar and spoken-*.tar, paired by `synset`. Or it holds two folders audios/ and images/ whose files have equal stems.
    """
    losses = {
        "sound2img": ("infonce", "infonce-l2"),
        "voice2face": ("speech2face", "infonce"),
        "img2speech": ("units",),
    }
    if task not in losses:
        raise UsageError(f"no bridge is called {task}", hint=f"there are: {', '.join(losses)}")
    loss = loss or losses[task][0]
    if loss not in losses[task]:
        raise UsageError(f"--loss {loss}: {task} has no such loss", hint=" or ".join(losses[task]))
    _check(data, output)
    if decoder is not None and not Path(decoder).is_dir():
        raise UsageError(f"--decoder {decoder}: no such folder")
    from mmx.store import locate
    from mmx.training.bridge import BridgeRecipe, train_sound_bridge
    from mmx.training.sight import train_sight_bridge
    from mmx.training.voice import train_voice_bridge
    from mmx.translate import pick_device

    train = {"sound2img": train_sound_bridge, "voice2face": train_voice_bridge, "img2speech": train_sight_bridge}[task]
    train(
        BridgeRecipe(
            data,
            output,
            locate(decoder, task, "decoder"),
            max_steps or {"sound2img": 2500, "voice2face": 1500, "img2speech": 6000}[task],
            batch_size,
            lr,
            seed,
            pick_device(device),
            loss,
            prior_steps,
            max_minutes or math.inf,
            quiet,
            _command(context),
            notes,
        )
    )
    print(f"{output}: use it with --bridge", file=sys.stderr)
