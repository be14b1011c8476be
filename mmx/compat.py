"""Make torchaudio importable beside any torch build. Import this before transformers or diffusers.

The registry's torchaudio wheel is linked against CUDA: beside a CPU torch `import torchaudio` raises OSError, beside
a newer CUDA torch RuntimeError, and transformers and diffusers import it whenever it is installed. Its transforms and
functional modules are pure Python, so we import it again with its extension loader replaced.
"""

from __future__ import annotations

import importlib
import os
import sys
import types


def _without_extension() -> types.ModuleType:
    """A stand-in for `torchaudio._extension` that says: no compiled code here."""
    stand_in = types.ModuleType("torchaudio._extension")
    stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
    stand_in._check_cuda_version = lambda: None  # type: ignore[attr-defined]
    stand_in.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
    return stand_in


def import_torchaudio() -> types.ModuleType:
    """Import torchaudio, falling back to its pure Python part."""
    try:
        import torchaudio
    except (OSError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _without_extension()
        import torchaudio
    return torchaudio


# transformers and diffusers print advice on stderr that is meant for developers, not for our users.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

torchaudio = import_torchaudio()


def quiet_libraries(*names: str) -> None:
    """No progress bars of transformers and diffusers, or of those that are named: loading a starter model takes less
    than a second. It imports them: only for who uses them next.
    """
    for name in names or ("diffusers", "transformers"):
        importlib.import_module(f"{name}.utils.logging").disable_progress_bar()
