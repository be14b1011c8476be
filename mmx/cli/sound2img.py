"""`mmx sound2img`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.options import (
    BridgeOption,
    Compile,
    DecoderOption,
    Device,
    Dtype,
    Duration,
    EncoderOption,
    Grid,
    Guidance,
    Inputs,
    Json,
    LowMemory,
    Num,
    Output,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Start,
    Steps,
)
from mmx.cli.translate import Extra, Request, carry_out
from mmx.errors import UsageError
from mmx.media.files import expand, names_a_file


def sound2img(
    inputs: Inputs,
    output: Output = None,
    num: Num = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Annotated[
        Optional[int],
        typer.Option("--size", min=8, max=4096, show_default=False, help="Pixels a side. Default: the decoder's."),
    ] = None,
    grid: Grid = False,
    gain: Annotated[
        float,
        typer.Option(
            "--gain",
            min=-60,
            max=60,
            metavar="dB",
            help="Make the input louder or quieter; with --mix it moves the balance.",
        ),
    ] = 0.0,
    mix: Annotated[
        Optional[list[str]],
        typer.Option("--mix", metavar="FILE[:weight]", show_default=False, help="Hear another sound at the same time."),
    ] = None,
    interpolate: Annotated[
        Optional[str],
        typer.Option(
            "--interpolate",
            metavar="FILE",
            show_default=False,
            help="Walk to another sound: a strip (.png) or an animation (.gif).",
        ),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=2, max=500, help="Pictures on that walk.")] = 8,
    image: Annotated[
        Optional[str],
        typer.Option(
            "--image",
            metavar="FILE[:weight]",
            show_default=False,
            help="A picture to edit toward the sound; weight 1 keeps it. Of a bridge with two sources: what is seen beside it.",
        ),
    ] = None,
    start: Start = None,
    duration: Duration = None,
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    encoder: EncoderOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    low_memory: LowMemory = False,
    compile_: Compile = False,
    as_json: Json = False,
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Turn sounds into pictures of what makes them.

    mmx sound2img bark.wav -o dog.png

    mmx sound2img recordings/ -o pictures/ -n 4

    cat bark.wav | mmx sound2img - -o - > dog.png
    """
    layout = _layout(output, grid=grid, interpolate=interpolate)
    sources = expand(inputs, "sound")
    request = Request(
        "sound2img",
        sources,
        output,
        tuple(range(num)),
        layout,
        ".gif" if layout == "gif" else ".png",
        together=layout == "grid" and len(sources) > 1 and names_a_file(output),
        extras=tuple(_blended(mix or [], interpolate, image)),
        bridge=bridge,
        decoder=decoder,
        encoder=encoder,
        as_json=as_json,
        quiet=quiet,
        overwrite=overwrite,
        resume=resume,
    )
    groups = request.groups()
    from mmx.translate.job import Settings  # from here on it is slow: torch and the models

    carry_out(
        request,
        groups,
        Settings(
            seed,
            steps,
            guidance,
            size,
            gain,
            start,
            duration,
            frames,
            device,
            dtype,
            low_memory=low_memory,
            compile=compile_,
        ),
    )


def _layout(output: str | None, *, grid: bool, interpolate: str | None) -> str:
    gif = output is not None and output.lower().endswith(".gif")
    if gif and interpolate is None:
        raise UsageError(
            "a .gif is an animation, and only --interpolate makes one", hint="write .png, or give --interpolate FILE"
        )
    if interpolate is not None:
        return "gif" if gif else "strip"
    return "grid" if grid else "single"


def _weighted(text: str, default: float) -> tuple[str, float]:
    """FILE[:weight] → both. A colon that is part of an existing file's name is left alone."""
    head, colon, tail = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, default
    try:
        weight = float(tail)
    except ValueError:
        return text, default
    if not 0 <= weight <= 1:
        raise UsageError(f"{text}: a weight lies between 0 and 1")
    return head, weight


def _blended(mix: list[str], interpolate: str | None, image: str | None) -> list[Extra]:
    extras = [Extra(path, "mix", weight) for path, weight in (_weighted(text, 0.5) for text in mix)]
    if interpolate is not None:
        extras.append(Extra(interpolate, "interpolate", 1.0))
    if image is not None:
        path, weight = _weighted(image, 0.5)
        extras.append(Extra(path, "image", weight))
    for extra in extras:
        if not Path(extra.path).is_file():
            raise UsageError(f"--{extra.role} {extra.path}: no such file")
    return extras
