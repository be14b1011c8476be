"""mmx: turn one modality into another from the shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
