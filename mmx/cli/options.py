"""Single options of `mmx.options`, for commands that are plain functions."""

from __future__ import annotations

from typing import get_type_hints

from mmx import options
from mmx.cli.takes import typers

Json = typers(get_type_hints(options.Json, include_extras=True)["as_json"])
Quiet = typers(get_type_hints(options.Quiet, include_extras=True)["quiet"])
