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


def _command() -> str:
    """The command line as it can be given again, for the card: paths by their last part."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return "mmx " + shlex.join(words)


def _check(data: Path, run: Path) -> None:
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder")
    if run.exists() and not run.is_dir():
        raise UsageError(f"-o {run} is a file", hint="give a folder")


def train_decoder(
    family: Annotated[str, typer.Argument(help="image", show_default=False)],
    data: Data,
    output: Run,
    space_steps: Annotated[int, typer.Option(min=1, help="Steps of the joint image-text space.")] = 1200,
    codec_steps: Annotated[int, typer.Option(min=1, help="Steps of the autoencoder.")] = 3500,
    denoiser_steps: Annotated[
        int, typer.Option("--denoiser-steps", "--max-steps", min=1, help="Steps of the diffusion model.")
    ] = 5000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a decoder and its teacher from scratch: images and captions → RUN/decoder.

    DIR holds WebDataset shards images-*.tar of KEY.jpg and KEY.json (words, synset, concept, split). Three stages, each resumable: the
    joint image-text space, the autoencoder, the diffusion model. RUN/*/preview.png shows how far each is.
    """
    if family != "image":
        raise UsageError(f"no decoder family is called {family}", hint="there is: image")
    _check(data, output)
    from mmx.training.decoder import ImageRecipe, train_image_decoder
    from mmx.translate import pick_device

    steps = {"space": space_steps, "codec": codec_steps, "denoiser": denoiser_steps}
    train_image_decoder(ImageRecipe(data, output, seed, pick_device(device), steps, quiet=quiet))
    print(f"{output / 'decoder'}: use it with --decoder", file=sys.stderr)


def train_bridge(
    task: Annotated[str, typer.Argument(help="sound2img", show_default=False)],
    data: Data,
    output: Run,
    decoder: DecoderOption = None,
    max_steps: Annotated[int, typer.Option(min=1)] = 2500,
    max_minutes: Annotated[
        Optional[float], typer.Option(min=0.01, show_default=False, help="Stop, and save, after this long.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(min=0.0)] = 1.5e-3,
    loss: Annotated[
        str, typer.Option(help="infonce (cosine, learned temperature) or infonce-l2 (Sound2Scene's).")
    ] = "infonce",
    prior_steps: Annotated[
        int, typer.Option(min=0, help="Steps of its diffusion prior, by which one source gives many results; 0: none.")
    ] = 6000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a bridge into a frozen decoder: paired data → RUN, a folder that --bridge takes.

    DIR holds WebDataset shards sounds-*.tar and images-*.tar, paired by the `concept` in their .json, or two folders audios/ and images/
    whose files have equal stems.
    """
    if task != "sound2img":
        raise UsageError(f"no bridge is called {task}", hint="there is: sound2img")
    if loss not in ("infonce", "infonce-l2"):
        raise UsageError(f"--loss {loss}: no such loss", hint="infonce or infonce-l2")
    _check(data, output)
    if decoder is not None and not Path(decoder).is_dir():
        raise UsageError(f"--decoder {decoder}: no such folder")
    from mmx.store import locate
    from mmx.training.bridge import BridgeRecipe, train_sound_bridge
    from mmx.translate import pick_device

    train_sound_bridge(
        BridgeRecipe(
            data,
            output,
            locate(decoder, task, "decoder"),
            max_steps,
            batch_size,
            lr,
            seed,
            pick_device(device),
            loss,
            prior_steps,
            max_minutes or math.inf,
            quiet,
            _command(),
        )
    )
    print(f"{output}: use it with --bridge", file=sys.stderr)
