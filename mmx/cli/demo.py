"""`mmx demo`."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mmx.cli.takes import takes
from mmx.errors import UsageError
from mmx.extras import require
from mmx.options import Quiet


@dataclass(frozen=True)
class Place:
    """Where the page is."""

    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="Of this machine's own address.")] = 7860


@takes
def demo(place: Place, saying: Quiet) -> None:
    """Show a local page: microphone or files → pictures, faces, speech, by the starter models. Ctrl-C ends it.

    Nothing leaves this machine: no fonts, scripts or statistics from elsewhere, and no other machine is let in.
    """
    require("mmx demo", "gradio")
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    from mmx.serving.demo import make_page, show_page  # from here on it is slow: gradio and torch

    with tempfile.TemporaryDirectory(prefix="mmx-demo-") as folder:
        page = make_page(Path(folder))
        try:
            where = show_page(page, Path(folder), place.port)
        except OSError as error:
            raise UsageError(f"port {place.port}: can't listen there: {error}", hint="another --port") from None
        if not saying.quiet:
            print(f"mmx demo: {where}", file=sys.stderr, flush=True)
        page.block_thread()
