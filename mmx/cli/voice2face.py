"""`mmx voice2face`."""

from __future__ import annotations

from typing import Annotated

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
from mmx.cli.translate import Request, carry_out
from mmx.errors import UsageError
from mmx.media.files import expand, names_a_file


def voice2face(
    inputs: Inputs,
    output: Output = None,
    num: Num = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    grid: Grid = False,
    average: Annotated[
        bool, typer.Option("--average", help="The inputs are one person: average their voices, make one face.")
    ] = False,
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
    """Imagine faces that such a voice might have.

    The face is a plausible average drawn for a voice like this. It is not the speaker and identifies nobody; the labels in the
    training data are binary and its people skewed; nothing of the voice is stored.

    mmx voice2face hello.wav -o face.png -n 8 --grid

    mmx voice2face monday.wav tuesday.wav --average -o face.png
    """
    sources = expand(inputs, "sound")
    if average and output is not None and output != "-" and not names_a_file(output):
        raise UsageError("--average makes one result of all inputs", hint="give -o FILE.png")
    sheet = grid and len(sources) > 1 and names_a_file(output)
    request = Request(
        "voice2face",
        sources,
        output,
        tuple(range(num)),
        "grid" if grid else "single",
        together=average or sheet,
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

    settings = Settings(seed, steps, guidance, None, 0.0, start, duration, 8, device, dtype, average)
    carry_out(request, groups, settings)
