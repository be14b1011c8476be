"""How far a pull is: the hub library's bars, of which the bytes alone are told on."""

from __future__ import annotations

import io
from typing import Any

from mmx.progress import Told

BYTES = "huggingface_hub.snapshot_download"  # what the library calls the bar of what is written to disk


def bar_for(told: Told, before: int, total: int) -> type:
    """A bar for the library that draws nothing. before: bytes of what was pulled already; total: of all that is to be,
    where that is known."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *given: Any, name: str | None = None, **more: Any) -> None:
            self.of_bytes = name == BYTES
            super().__init__(*given, name=name, **more | {"disable": False, "file": io.StringIO()})

        def display(self, *_: Any, **__: Any) -> None:
            if self.of_bytes:
                here = before + int(self.n)
                told(here, max(total, here, before + int(self.total or 0)))

    return Bar
