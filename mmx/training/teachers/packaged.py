"""Weights that come in packages of the Python index."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def file_of(package: str, pattern: str) -> Path | None:
    """The one file of a package whose name fits, without importing it; None where there is none, or no package."""
    found = importlib.util.find_spec(package)
    paths = [path for root in (found.submodule_search_locations if found else ()) for path in Path(root).rglob(pattern)]
    return paths[0] if len(paths) == 1 else None
