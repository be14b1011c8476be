"""`mmx text2img`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from mmx.cli.options import (
    BridgeOption,
    Compile,
    DecoderOption,
    Device,
    Dtype,
    Grid,
    Guidance,
    Json,
    LowMemory,
    Num,
    Output,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Steps,
)
from mmx.cli.translate import Request, carry_out
from mmx.errors import UsageError
from mmx.media.files import names_a_file, texts

Texts = Annotated[
    list[str],
    typer.Argument(metavar="TEXT...", help="Texts, .txt files with one each, or - for stdin.", show_default=False),
]


def text2img(
    texts_: Texts,
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
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    low_memory: LowMemory = False,
    compile_: Compile = False,
    as_json: Json = False,
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Turn texts into pictures, by the same prior and decoder that sounds drive. The starter knows little more than its 21 things.

    mmx text2img "a photo of a seashore" -o sea.png -n 4 --grid

    mmx text2img "a red fox in the snow" --decoder kandinsky-2.2 -o fox.png
    """
    if output is not None and output.lower().endswith(".gif"):
        raise UsageError("a text makes no animation", hint="write .png")
    sources = texts(texts_)
    request = Request(
        "text2img",
        sources,
        output,
        tuple(range(num)),
        "grid" if grid else "single",
        together=grid and len(sources) > 1 and names_a_file(output),
        bridge=bridge,
        decoder=decoder,
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
        Settings(seed, steps, guidance, size, device=device, dtype=dtype, low_memory=low_memory, compile=compile_),
    )
