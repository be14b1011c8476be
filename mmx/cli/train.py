"""`mmx train-decoder` and `mmx train-bridge`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from mmx.cli.takes import takes
from mmx.errors import UsageError
from mmx.models.store import missing
from mmx.recipes.bridge import BridgeOptions
from mmx.recipes.decoder import DecoderOptions


@dataclass(frozen=True)
class Line:
    """The command line itself."""

    context: typer.Context

    @property
    def command(self) -> str:
        """As it can be given again, for the card: paths by their last part, URLs without their queries."""
        words = [Path(word).name if Path(word).is_absolute() else word for word in self.context.find_root().obj["line"]]
        words = [word.partition("?")[0] if "://" in word else word for word in words]
        if "--notes" in words:  # they have their own place
            del words[words.index("--notes") : words.index("--notes") + 2]
        return "mmx " + shlex.join(words)


@takes
def train_decoder(line: Line, options: DecoderOptions) -> None:
    """Train a decoder and its teacher from scratch → RUN/decoder.

    DIR holds WebDataset shards of KEY.jpg and KEY.json: images-*.tar (words, synset, concept, split) or faces-*.tar
    (age, gender, split). Stages, each resumable: the space, the autoencoder, the diffusion model and, for faces, the
    autoencoder's decoder fitted to what the diffusion model makes. RUN/*/preview.png shows how far each is.
    For speech it holds spoken-*.tar (mmx data speak) and may hold speech-*.tar; --codec-steps are those of the units.
    text trains the text tower of a finished image decoder anew, against its frozen image tower, and writes the rest of
    --init as it is: bridges for a decoder with a generator stay valid. Of a face decoder it fits what texts about age
    and gender mean, and wants no captions.
    With --family gan the stages are the space and the generator; faces are drawn in the space that --teacher names. It
    needs pip install 'mmx\\[recipes]'.
    """
    options = options.settled()
    from mmx.device import pick_device  # from here on it is slow: torch

    common = {"data": options.data, "run": options.run, "seed": options.seed, "device": pick_device(options.device)}
    common |= {"steps": options.steps, "quiet": options.quiet, "command": line.command, "notes": options.notes}
    TRAINERS[options.family or ""](options, common)
    print(f"{options.run / 'decoder'}: use it with --decoder", file=sys.stderr)


def _train_diffusion(options: DecoderOptions, common: dict[str, Any]) -> None:
    from mmx.training.decoders.unclip import FAMILIES, DecoderRecipe
    from mmx.training.decoders.unclip import train_decoder as train

    train(DecoderRecipe(family=FAMILIES[options.what], teacher=options.own_teacher, **common))


def _train_gan(options: DecoderOptions, common: dict[str, Any]) -> None:
    from mmx.training.decoders.gan_config import SIZES
    from mmx.training.decoders.gan_stages import GanRecipe, train_gan_decoder

    own = {"what": options.what, "sizes": SIZES[options.what]}
    train_gan_decoder(GanRecipe(teacher=options.own_teacher, start=options.init, **own, **common))


def _train_units(options: DecoderOptions, common: dict[str, Any]) -> None:
    from mmx.training.decoders.speech import SpeechRecipe, train_speech_decoder

    steps = {"units" if stage == "codec" else stage: count for stage, count in options.steps.items()}
    train_speech_decoder(SpeechRecipe(start=options.init, **common | {"steps": steps}))


def _train_text(options: DecoderOptions, common: dict[str, Any]) -> None:
    from mmx.training.decoders.face_stage import train_face_texts
    from mmx.training.decoders.text_stage import TextRecipe, train_text

    assert options.init is not None  # settled
    train = train_face_texts if options.of_faces else train_text
    train(TextRecipe(start=options.init, captions=tuple(options.captions), **common))


TRAINERS = {"diffusion": _train_diffusion, "gan": _train_gan, "units": _train_units, "text": _train_text}


@dataclass(frozen=True)
class Publishing:
    """Where a finished bridge goes."""

    push_to_hub: Annotated[
        Optional[str], typer.Option(metavar="REPO", show_default=False, help="Upload the finished bridge to the hub.")
    ] = None


@takes
def train_bridge(line: Line, options: BridgeOptions, publishing: Publishing) -> None:
    """Train a bridge into a frozen decoder: paired data → RUN, a folder that --bridge takes.

    DATA is two folders with equal stems (audios/ and images/), a manifest with source, target and optionally split,
    weight, label, shards whose samples hold both sides, or two kinds of shards paired by a key of their .json:
    sounds-*.tar and images-*.tar by `concept`, voices-*.tar and faces-*.tar by `identity` or else `gender`,
    images-*.tar and spoken-*.tar by `synset`.

    accelerate launch --num_processes 2 -m mmx train-bridge ... trains in several processes, on one or many machines;
    on CPUs, which accelerate starts one process for, torchrun --nproc-per-node 2 -m mmx train-bridge ... does.
    """
    options = options.settled()
    named = {"--decoder": options.decoder_name, "--encoder": options.encoder_name, "--init": options.init_name}
    for option, name in named.items():
        if missing(name):
            raise UsageError(f"{option} {missing(name)}: no such folder")
    if publishing.push_to_hub:
        from mmx.models.store import refuse_push

        refuse_push(publishing.push_to_hub)
    from mmx.training.bridges.base import BridgeRecipe  # from here on it is slow: torch and the models
    from mmx.training.bridges.train import train_bridge as train

    recipe = BridgeRecipe(**vars(options), command=line.command)
    train(recipe)
    if recipe.team.leads:
        if publishing.push_to_hub:
            from mmx.models.store import push

            push(options.run, publishing.push_to_hub)
        if not options.quiet:
            print(f"{options.run}: use it with --bridge", file=sys.stderr)
