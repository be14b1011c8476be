"""mmx: turn one modality into another from the shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Read when torch is first imported, so they stand here, where every entry comes by before. Threads that wait for each
# other by spinning take the processor from the one that all wait for, as soon as anything else runs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from mmx.translate.load import load


def __getattr__(name: str) -> Any:
    # `import mmx` must stay free of torch; `mmx.load` brings it in when it is first touched
    if name == "load":
        from mmx.translate.load import load

        return load
    raise AttributeError(f"module 'mmx' has no attribute {name!r}")
