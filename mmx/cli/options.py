"""Single options of `mmx.options`, for commands that are plain functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from mmx import options

Json = get_type_hints(options.Json, include_extras=True)["as_json"]
Quiet = get_type_hints(options.Quiet, include_extras=True)["quiet"]
Device = get_type_hints(options.Device, include_extras=True)["device"]
BridgeOption, DecoderOption, EncoderOption = get_type_hints(options.Models, include_extras=True).values()
Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", show_default=False, help="The folder with the training data.")
]
