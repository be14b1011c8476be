"""`mmx train-decoder` and `mmx train-bridge`."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from mmx.cli.options import Data, DecoderOption, Device, EncoderOption, Quiet
from mmx.errors import UsageError
from mmx.models.store import missing
from mmx.tasks import COMPARING
from mmx.tasks import task as find_task

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


# what can be trained: kind → family, the default first → the stages whose steps can be chosen
STAGES = {
    "image": {"diffusion": ("space", "codec", "denoiser", "finish"), "gan": ("space", "gan")},
    "face": {"diffusion": ("space", "codec", "denoiser", "finish")},
    "speech": {"units": ("codec", "vocoder")},
}


def _command(context: typer.Context) -> str:
    """The command line as it can be given again, for the card: paths by their last part, URLs without their queries, which may hold keys."""
    line = context.find_root().obj["line"]
    words = [Path(word).name if Path(word).is_absolute() else word for word in line]
    words = [word.partition("?")[0] if "://" in word else word for word in words]
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
    what: Annotated[str, typer.Argument(metavar="WHAT", help="image, face or speech.", show_default=False)],
    data: Data,
    output: Run,
    family: Annotated[
        Optional[str],
        typer.Option(
            "--family",
            show_default=False,
            help="Of image: diffusion, or gan, which draws in one step. Default: diffusion.",
        ),
    ] = None,
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
    gan_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Steps of the generator and its critic.")
    ] = None,
    init: Annotated[
        Optional[Path],
        typer.Option(
            "--init", metavar="DECODER", show_default=False, help="--family gan: go on from this decoder's weights."
        ),
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
    With --family gan the stages are the space and the generator; it needs pip install 'mmx[recipes]'.
    """
    if what not in STAGES:
        raise UsageError(f"no decoder is called {what}", hint=f"there are: {', '.join(STAGES)}")
    family = family or next(iter(STAGES[what]))
    if family not in STAGES[what]:
        raise UsageError(f"--family {family}: {what} has no such family", hint=" or ".join(STAGES[what]))
    _check(data, output)
    for option, folder, families in (("--teacher", teacher, ("diffusion", "gan")), ("--init", init, ("gan",))):
        if folder is not None and family not in families:
            raise UsageError(f"{option} {folder}: {what} of family {family} takes none", hint=" or ".join(families))
        if folder is not None and not (folder / "teacher").is_dir():
            raise UsageError(f"{option} {folder}: no decoder folder with a teacher/ in it")
    given = {
        "space": space_steps,
        "codec": codec_steps,
        "denoiser": denoiser_steps,
        "finish": finish_steps,
        "vocoder": vocoder_steps,
        "gan": gan_steps,
    }
    steps = {stage: count for stage, count in given.items() if count is not None}
    for stage in steps:
        if stage not in STAGES[what][family]:
            raise UsageError(
                f"--{stage}-steps: {what} has no such stage",
                hint="there are: " + ", ".join(f"--{name}-steps" for name in STAGES[what][family]),
            )
    common = {"seed": seed, "steps": steps, "quiet": quiet, "command": _command(context), "notes": notes}
    where = {"data": data, "run": output, "device": _device(device)}
    own = None if teacher is None else teacher / "teacher"
    TRAINERS[family](what, common | where, own, init)
    print(f"{output / 'decoder'}: use it with --decoder", file=sys.stderr)


def _device(device: str) -> str:
    from mmx.device import pick_device

    return pick_device(device)


def _train_diffusion(what: str, options: dict[str, Any], teacher: Path | None, init: Path | None) -> None:
    from mmx.training.decoders.unclip import FAMILIES, DecoderRecipe
    from mmx.training.decoders.unclip import train_decoder as train

    train(DecoderRecipe(family=FAMILIES[what], teacher=teacher, **options))


def _train_gan(what: str, options: dict[str, Any], teacher: Path | None, init: Path | None) -> None:
    from mmx.training.decoders.gan_stages import GanRecipe, train_gan_decoder

    train_gan_decoder(GanRecipe(teacher=teacher, start=init, **options))


def _train_units(what: str, options: dict[str, Any], teacher: Path | None, init: Path | None) -> None:
    from mmx.training.decoders.speech import SpeechRecipe, train_speech_decoder

    named = {"units" if stage == "codec" else stage: count for stage, count in options["steps"].items()}
    train_speech_decoder(SpeechRecipe(**options | {"steps": named}))


TRAINERS = {"diffusion": _train_diffusion, "gan": _train_gan, "units": _train_units}


def train_bridge(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="sound2img, voice2face or img2speech.", show_default=False)],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            show_default=False,
            help="A folder, a .jsonl or .csv manifest, or a URL of shards with {000..009} spelled out.",
        ),
    ],
    output: Run,
    decoder: DecoderOption = None,
    encoder: EncoderOption = None,
    lora: Annotated[
        int,
        typer.Option(
            "--lora",
            min=0,
            max=256,
            help="Adapt --encoder, too: the rank of the corrections to its attention layers; 0: none.",
        ),
    ] = 0,
    architecture: Annotated[
        str,
        typer.Option("--architecture", help="What hears log-mels: cnn or transformer; with --encoder a head on it."),
    ] = "cnn",
    norm: Annotated[str, typer.Option("--norm", help="What the CNN normalises by: group or batch.")] = "group",
    source: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="sound, or sound+image: a second source, heard and seen together or each alone. Default: the task's one.",
        ),
    ] = "",
    dropout: Annotated[Optional[float], typer.Option(min=0.0, max=0.9, show_default=False)] = None,
    loss: Annotated[
        Optional[str],
        typer.Option(
            show_default=False,
            help="infonce (cosine, learned temperature), infonce-l2 (Sound2Scene's), mse, cosine; of sound2img also prior (by the "
            "diffusion prior alone); of voice2face speech2face, "
            "of img2speech units. Default: infonce, speech2face, units.",
        ),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Label smoothing of the contrastive losses.")
    ] = 0.0,
    hard_negatives: Annotated[
        int, typer.Option(min=0, help="Contrast with so many of the hardest negatives only; 0: all.")
    ] = 0,
    normalize_targets: Annotated[
        bool,
        typer.Option(
            "--normalize-targets",
            help="Compare with the targets less their mean and over their spread, coordinate by coordinate.",
        ),
    ] = False,
    prior_steps: Annotated[
        int, typer.Option(min=0, help="Steps of its diffusion prior, by which one source gives many results; 0: none.")
    ] = 6000,
    max_steps: Annotated[
        Optional[int], typer.Option(min=1, show_default=False, help="Default: 2500; of voices 1500.")
    ] = None,
    max_minutes: Annotated[
        Optional[float], typer.Option(min=0.01, show_default=False, help="Stop, and save, after this long.")
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(min=2, show_default=False, help="Of each process. Default: 64; of voices 48.")
    ] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches that make one step.")] = 1,
    lr: Annotated[Optional[float], typer.Option(min=0.0, show_default=False)] = None,
    metric: Annotated[
        Optional[str],
        typer.Option(
            show_default=False, help="Keep the weights that are best by this metric of val. Default: the last."
        ),
    ] = None,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many validations without a better --metric.")] = 0,
    mixed_precision: Annotated[str, typer.Option(help="bf16 or no.")] = "bf16",
    cache: Annotated[
        Optional[Path],
        typer.Option(
            show_default=False, help="Where features and targets are kept. Default: MMX_CACHE or the user's cache."
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard, into RUN.")] = False,
    push_to_hub: Annotated[
        Optional[str], typer.Option(metavar="REPO", show_default=False, help="Upload the finished bridge to the hub.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    notes: Notes = "",
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a bridge into a frozen decoder: paired data → RUN, a folder that --bridge takes.

    DATA is two folders with equal stems (audios/ and images/), a manifest with source, target and optionally split, weight, label, shards
    whose samples hold both sides, or two kinds of shards paired by a key of their .json: sounds-*.tar and images-*.tar by
    `concept`, voices-*.tar and faces-*.tar by `identity` or else `gender`, images-*.tar and spoken-*.tar by `synset`.

    accelerate launch --num_processes 2 -m mmx train-bridge ... trains in several processes, on one or many machines; on CPUs, which
    accelerate starts one process for, torchrun --nproc-per-node 2 -m mmx train-bridge ... does.
    """
    row = find_task(task, having="trainer")
    loss = loss or row.losses[0]
    if loss not in row.losses:
        raise UsageError(f"--loss {loss}: {task} has no such loss", hint=" or ".join(row.losses))
    if architecture not in ("cnn", "transformer"):
        raise UsageError(f"--architecture {architecture}: no such architecture", hint="cnn or transformer")
    if norm not in ("group", "batch"):
        raise UsageError(f"--norm {norm}: no such normalisation", hint="group or batch")
    if source not in ("", "sound", "sound+image") or (source and task != "sound2img"):
        raise UsageError(f"--source {source}: {task} has no such sources", hint="sound2img: sound or sound+image")
    if lora and (encoder is None or row.source.modality != "sound"):
        raise UsageError("--lora adapts an audio encoder, and there is none", hint="--encoder wavlm --lora 8")
    if normalize_targets and loss not in COMPARING:
        raise UsageError(f"--loss {loss} does not compare with normalised targets", hint=" or ".join(COMPARING))
    if mixed_precision not in ("bf16", "no"):
        raise UsageError(f"--mixed-precision {mixed_precision}: no such precision", hint="bf16 or no")
    if patience and not metric:
        raise UsageError("--patience needs a --metric to watch", hint="--metric val_recall_at_1")
    if "://" not in data and "{" not in data and "*" not in data and not Path(data).exists():
        raise UsageError(f"--data {data}: no such file or folder")
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output} is a file", hint="give a folder")
    for option, name in (("--decoder", decoder), ("--encoder", encoder)):
        if missing(name):
            raise UsageError(f"{option} {missing(name)}: no such folder")
    from mmx.device import pick_device
    from mmx.models.store import locate
    from mmx.training.bridges.base import BridgeRecipe
    from mmx.training.bridges.train import train_bridge as train
    from mmx.training.engine.parallel import Team

    recipe = BridgeRecipe(
        task,
        data,
        output,
        locate(decoder, task, "decoder"),
        None if encoder is None else locate(encoder, task, "encoder"),
        lora,
        tuple((source or "sound").split("+")),
        architecture,
        {} if dropout is None else {"dropout": dropout},
        loss,
        smoothing,
        hard_negatives,
        normalize_targets,
        prior_steps,
        {
            "max_steps": max_steps,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "lr": lr,
            "seed": seed,
            "metric": metric,
            "patience": patience,
            "bf16": mixed_precision == "bf16",
        },
        max_minutes or math.inf,
        cache,
        Team(pick_device(device)),
        quiet,
        as_json,
        tensorboard,
        _command(context),
        notes,
        norm=norm,
    )
    train(recipe)
    if recipe.team.leads:
        if push_to_hub:
            from mmx.models.store import push

            push(output, push_to_hub)
        if not quiet:
            print(f"{output}: use it with --bridge", file=sys.stderr)
