"""`mmx img2speech`."""

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
    EncoderOption,
    Inputs,
    Json,
    LowMemory,
    Num,
    Output,
    Overwrite,
    Quiet,
    Resume,
    Seed,
)
from mmx.cli.translate import Request, carry_out
from mmx.errors import UsageError
from mmx.media.files import Target, expand


def img2speech(
    inputs: Inputs,
    output: Output = None,
    num: Num = 1,
    seed: Seed = 0,
    beam: Annotated[
        Optional[int],
        typer.Option(
            "--beam",
            min=1,
            max=32,
            show_default=False,
            help="Search for the first result with a beam of this width; 1 is greedy. Default: the likeliest of 32 drawn.",
        ),
    ] = None,
    temperature: Annotated[
        Optional[float],
        typer.Option(
            "--temperature",
            min=0.0,
            max=5.0,
            show_default=False,
            help="Draw units at this temperature; 0 is greedy. Default: the likeliest first, the others at 0.8.",
        ),
    ] = None,
    top_p: Annotated[
        float, typer.Option("--top-p", min=0.01, max=1.0, help="Draw from the likeliest units of this share only.")
    ] = 0.9,
    speed: Annotated[float, typer.Option("--speed", min=0.25, max=4.0, help="2 speaks twice as fast.")] = 1.0,
    voice: Annotated[
        Optional[str],
        typer.Option("--voice", show_default=False, help="One of the decoder's voices, such as slt or rms."),
    ] = None,
    spectrogram: Annotated[
        Optional[Path],
        typer.Option("--spectrogram", metavar="FILE.png", show_default=False, help="Also draw what was said."),
    ] = None,
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
    """Say what a picture shows, with no text in between.

    mmx img2speech cat.jpg -o cat.wav

    cat bark.wav | mmx sound2img - -o - | mmx img2speech - -o said.wav
    """
    if beam and beam > 1 and temperature:
        raise UsageError("--beam searches and --temperature draws", hint="give one of them")
    sources = expand(inputs, "image")
    if spectrogram is not None:
        if len(sources) * num != 1:
            raise UsageError("--spectrogram draws one result", hint="mmx show FILE draws any sound")
        if spectrogram.suffix.lower() != ".png":
            raise UsageError(f"--spectrogram {spectrogram}: this writes .png files")
        Target(spectrogram).check(overwrite=overwrite)
    request = Request(
        "img2speech",
        sources,
        output,
        tuple(range(num)),
        suffix=".wav",
        bridge=bridge,
        decoder=decoder,
        encoder=encoder,
        as_json=as_json,
        quiet=quiet,
        overwrite=overwrite,
        resume=resume,
        drawing=spectrogram,
    )
    groups = request.groups()
    from mmx.translate.job import Settings  # from here on it is slow: torch and the models

    settings = Settings(
        seed,
        device=device,
        dtype=dtype,
        low_memory=low_memory,
        compile=compile_,
        beam=beam,
        temperature=temperature,
        top_p=top_p,
        speed=speed,
        voice=voice,
    )
    carry_out(request, groups, settings)
