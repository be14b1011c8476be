"""The options of the commands, each declared once: what it is called, what it may be, what it does, and its default.

Commands take these groups (`mmx.cli.takes`), settings and recipes (`mmx.recipes`) are made of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Optional, Self

from mmx.declared import Argument, Option
from mmx.recipes.editing import Editing, Stopped

# of fields that the identity of a training run leaves out: weights come out the same whatever they are; or it holds
# digests instead, of data and models; or the loop compares them itself, of a schedule
FREE = {"identity": False}

Seed = Annotated[int, Option("--seed", min=0, help="The same seed gives the same bytes on the same machine.")]

Overwrite = Annotated[bool, Option("--overwrite", help="Replace files that exist.")]


@dataclass(frozen=True)
class Files:
    """What is translated."""

    inputs: Annotated[
        list[str], Argument(metavar="INPUT...", help="Files, folders, globs, or - for stdin.", show_default=False)
    ]


@dataclass(frozen=True)
class Texts:
    """What text2img is given."""

    texts: Annotated[
        list[str],
        Argument(metavar="TEXT...", help="Texts, .txt files with one each, or - for stdin.", show_default=False),
    ]


@dataclass(frozen=True)
class Output:
    """Where results go, and how many there are of each input."""

    output: Annotated[
        Optional[str],
        Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="A file, a folder (mirrors the inputs; names that differ by suffix alone are kept whole, as in "
            "a.wav.png), or - for stdout. Default: the current folder.",
        ),
    ] = None
    num: Annotated[int, Option("-n", "--num", min=1, max=10_000, help="How many different results of each input.")] = 1
    overwrite: Overwrite = False
    resume: Annotated[
        bool,
        Option("--resume", help="Of a folder of results: skip what was made by the same options and models."),
    ] = False


@dataclass(frozen=True)
class Pictures(Output):
    """Where pictures go."""

    grid: Annotated[bool, Option("--grid", help="One contact sheet of the results instead of a file each.")] = False


@dataclass(frozen=True)
class Sampling:
    """How a decoder draws a picture."""

    seed: Seed = 0
    steps: Annotated[
        Optional[int],
        Option("--steps", min=1, max=1000, show_default=False, help="Denoising steps. Default: the decoder's."),
    ] = None
    guidance: Annotated[
        Optional[float],
        Option(
            "--guidance",
            min=0.0,
            max=100.0,
            show_default=False,
            help="Classifier-free guidance; 1 is none. Default: the decoder's.",
        ),
    ] = None


@dataclass(frozen=True)
class SizedSampling(Sampling):
    """How a decoder that has several sizes draws a picture."""

    size: Annotated[
        Optional[int],
        Option("--size", min=8, max=4096, show_default=False, help="Pixels a side. Default: the decoder's."),
    ] = None


@dataclass(frozen=True)
class Levels:
    """Of sounds that are heard together, or one after the other."""

    gain: Annotated[
        float,
        Option(
            "--gain",
            min=-60,
            max=60,
            metavar="dB",
            help="Make the input louder or quieter; with --mix it moves the balance.",
        ),
    ] = 0.0
    frames: Annotated[int, Option("--frames", min=2, max=500, help="Pictures on the way that --interpolate goes.")] = 8


@dataclass(frozen=True)
class Blending(Levels):
    """What else goes into a result."""

    mix: Annotated[
        list[str],
        Option("--mix", metavar="FILE[:weight]", show_default=False, help="Hear another sound at the same time."),
    ] = field(default_factory=list)
    interpolate: Annotated[
        Optional[str],
        Option(
            "--interpolate",
            metavar="FILE",
            show_default=False,
            help="Walk to another sound: a strip (.png) or an animation (.gif).",
        ),
    ] = None
    image: Annotated[
        Optional[str],
        Option(
            "--image",
            metavar="FILE[:weight]",
            show_default=False,
            help="A picture to edit toward the sound; weight 1 keeps it. "
            "For a bridge with two sources: what is seen together with the sound.",
        ),
    ] = None


@dataclass(frozen=True)
class Excerpt:
    """Which part of an input is heard."""

    start: Annotated[
        Optional[float],
        Option("--start", min=0, metavar="s", show_default=False, help="Where to begin. Default: the loudest."),
    ] = None
    duration: Annotated[
        Optional[float],
        Option("--duration", min=0.01, metavar="s", show_default=False, help="How much of the input to hear."),
    ] = None


@dataclass(frozen=True)
class Averaging:
    """Several inputs that are one."""

    average: Annotated[
        bool, Option("--average", help="The inputs are one person: average their voices, make one face.")
    ] = False


@dataclass(frozen=True)
class Speaking:
    """How speech is written and said."""

    seed: Seed = 0
    beam: Annotated[
        Optional[int],
        Option(
            "--beam",
            min=1,
            max=32,
            show_default=False,
            help="Search for the first result with a beam of this width; 1 is greedy. "
            "Default: the likeliest of 32 drawn.",
        ),
    ] = None
    temperature: Annotated[
        Optional[float],
        Option(
            "--temperature",
            min=0.0,
            max=5.0,
            show_default=False,
            help="Draw units at this temperature; 0 is greedy. Default: the likeliest first, the others at 0.8.",
        ),
    ] = None
    top_p: Annotated[
        float, Option("--top-p", min=0.01, max=1.0, help="Draw from the likeliest units of this share only.")
    ] = 0.9
    speed: Annotated[float, Option("--speed", min=0.25, max=4.0, help="2 speaks twice as fast.")] = 1.0
    voice: Annotated[
        Optional[str],
        Option("--voice", show_default=False, help="One of the decoder's voices, such as slt or rms."),
    ] = None


Decoder = Annotated[
    Optional[str],
    Option("--decoder", metavar="FOLDER", show_default=False, help="The decoder of that bridge. Default: the starter."),
]
Encoder = Annotated[
    Optional[str],
    Option(
        "--encoder",
        metavar="FOLDER",
        show_default=False,
        help="The frozen encoder that the bridge was trained with, where it has one; for img2speech an image decoder, "
        "CLIP, SigLIP, DINOv2 or ViT. Default: the starter.",
    ),
]


@dataclass(frozen=True)
class BridgeAndDecoder:
    """Which models are used."""

    bridge: Annotated[
        Optional[str],
        Option(
            "--bridge", metavar="FOLDER", show_default=False, help="A bridge that you trained. Default: the starter."
        ),
    ] = None
    decoder: Decoder = None


@dataclass(frozen=True)
class Models(BridgeAndDecoder):
    """Which models are used, where a bridge may have an encoder."""

    encoder: Encoder = None


@dataclass(frozen=True)
class Device:
    """Where a command computes."""

    device: Annotated[str, Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = field(
        default="auto", metadata=FREE
    )


@dataclass(frozen=True)
class Placement(Device):
    """Where and in what a translation is computed."""

    dtype: Annotated[str, Option("--dtype", help="auto, fp32, bf16 or fp16.")] = "auto"
    low_memory: Annotated[
        bool,
        Option(
            "--low-memory",
            help="Keep a full-size model's parts off the GPU until they are needed, and decode in tiles: slower.",
        ),
    ] = False
    compile: Annotated[bool, Option("--compile", help="Compile the decoder first: worth it for many results.")] = False


def _forbid_bars(forbidden: bool) -> bool:
    """What the hub's library and those that load models read when they are imported."""
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} if forbidden else {}
    return forbidden


@dataclass(frozen=True)
class Quiet:
    """What a command says while it works."""

    quiet: Annotated[bool, Option("-q", "--quiet", callback=_forbid_bars, help="Say nothing on stderr but errors.")] = (
        field(default=False, metadata=FREE)
    )


@dataclass(frozen=True)
class Json:
    """How a command says what it found."""

    as_json: Annotated[bool, Option("--json", help="One JSON object a line on stdout, errors too.")] = False


@dataclass(frozen=True)
class Saying(Quiet, Json):
    """What a command says, and how."""


@dataclass(frozen=True)
class Settings(Placement, Speaking, Averaging, Excerpt, Levels, SizedSampling, Editing, Stopped):
    """The options of a translation that change its bytes, as provenance keeps them."""

    @classmethod
    def of(cls, *groups: Any) -> Self:
        """The settings among the options of a command."""
        own = {option.name for option in fields(cls)}
        return cls(**{name: value for group in groups for name, value in vars(group).items() if name in own})

    @property
    def placement(self) -> dict[str, Any]:
        """Where and in what to compute, as `mmx.load` takes it."""
        return {option.name: getattr(self, option.name) for option in fields(Placement)}
