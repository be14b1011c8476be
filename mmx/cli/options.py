"""The options that commands share, by one name and with one help text everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Files, folders, globs, or - for stdin.", show_default=False)
]
Output = Annotated[
    Optional[str],
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        show_default=False,
        help="A file, a folder (mirrors the inputs), or - for stdout. Default: the current folder.",
    ),
]
Num = Annotated[int, typer.Option("-n", "--num", min=1, max=10_000, help="How many different results of each input.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes on the same machine.")]
Steps = Annotated[
    Optional[int],
    typer.Option("--steps", min=1, max=1000, show_default=False, help="Denoising steps. Default: the decoder's."),
]
Guidance = Annotated[
    Optional[float],
    typer.Option(
        "--guidance",
        min=0.0,
        max=100.0,
        show_default=False,
        help="Classifier-free guidance; 1 is none. Default: the decoder's.",
    ),
]
Grid = Annotated[bool, typer.Option("--grid", help="One contact sheet of the results instead of a file each.")]
Start = Annotated[
    Optional[float],
    typer.Option(
        "--start",
        min=0,
        metavar="s",
        show_default=False,
        help="Where in the input to begin. Default: where there is most to hear.",
    ),
]
Duration = Annotated[
    Optional[float],
    typer.Option("--duration", min=0.01, metavar="s", show_default=False, help="How much of the input to hear."),
]
BridgeOption = Annotated[
    Optional[str],
    typer.Option(
        "--bridge", metavar="FOLDER", show_default=False, help="A bridge that you trained. Default: the starter."
    ),
]
DecoderOption = Annotated[
    Optional[str],
    typer.Option(
        "--decoder", metavar="FOLDER", show_default=False, help="The decoder of that bridge. Default: the starter."
    ),
]
EncoderOption = Annotated[
    Optional[str],
    typer.Option(
        "--encoder",
        metavar="FOLDER",
        show_default=False,
        help="The frozen encoder that the bridge was trained with, where it has one; of img2speech an image decoder, CLIP, SigLIP, DINOv2 or ViT. Default: the starter.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, fp32, bf16 or fp16.")]
LowMemory = Annotated[
    bool,
    typer.Option(
        "--low-memory",
        help="Keep a full-size model's parts off the GPU until they are needed, and decode in tiles: slower.",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the decoder first: worth it for many results.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, errors too.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing on stderr but errors.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Of a folder of results: leave out what was done, by the same options and models."),
]
Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", show_default=False, help="The folder with the training data.")
]
