"""What `mmx doctor` looks at."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmx.errors import MmxError

LOW_DISK = 5e9  # bytes


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, how it is, and what to do where it is not well."""

    name: str
    ok: bool
    state: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def checks() -> list[Check]:
    """All checks; one that breaks is a finding itself."""
    found = []
    for look in (_python, _torch, _device, _torchaudio, _ffmpeg, _starters, _hub, _cache, _disk):
        try:
            found.append(look())
        except Exception as error:
            found.append(
                Check(
                    look.__name__.strip("_"),
                    False,
                    f"{type(error).__name__}: {error}",
                    "pip install --force-reinstall mmx",
                )
            )
    return found


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    return Check(
        "python",
        good,
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if good else "install Python 3.11 or newer",
    )


def _torch() -> Check:
    import torch

    good = torch.__version__.startswith("2.13.")
    return Check(
        "torch",
        good,
        f"{torch.__version__}, {torch.get_num_threads()} threads",
        "" if good else "pip install 'torch~=2.13.0': other builds break torchaudio 2.11",
    )


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9
        return Check("device", True, f"{torch.cuda.get_device_name(0)}, {gigabytes:.0f} GB, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Check("device", True, "Apple GPU (mps)")
    return Check("device", True, "CPU only", "the starter models are made for it; full-size models want a GPU")


def _torchaudio() -> Check:
    from mmx.compat import torchaudio

    version = importlib.metadata.version("torchaudio")
    mended = not getattr(torchaudio._extension, "_IS_TORCHAUDIO_EXT_AVAILABLE", False)
    return Check(
        "torchaudio", True, f"{version}{', without its compiled part (mmx needs none of it)' if mended else ''}"
    )


def _ffmpeg() -> Check:
    import av

    return Check(
        "ffmpeg", True, f"PyAV {av.__version__} with libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    )


def _starters() -> Check:
    from mmx.models.store import assets, verify

    folder = assets() / "starter"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    try:
        for name in names:
            verify(folder / name, fresh=True)
    except MmxError as error:
        return Check("starter models", False, error.message, "pip install --force-reinstall mmx")
    if not names:
        return Check("starter models", False, "none here", "pip install --force-reinstall mmx")
    return Check("starter models", True, f"{', '.join(names)}: every file is the published one")


def _hub() -> Check:
    from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE

    from mmx.models.hub import offline, on_disk

    here = on_disk()
    size = sum(entry.bytes for entry in here)
    network = "network off" if offline() else ENDPOINT
    return Check("hub cache", True, f"{len(here)} models, {size / 1e9:.1f} GB in {HF_HUB_CACHE} ({network})")


def _cache() -> Check:
    from mmx.digest import cache_root

    root = cache_root()
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) if root.is_dir() else 0
    return Check(
        "training cache",
        True,
        f"{size / 1e9:.1f} GB in {root}",
        "delete it when no run needs it" if size > 20e9 else "",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.home()).free
    return Check(
        "disk",
        free > LOW_DISK,
        f"{free / 1e9:.0f} GB free",
        "" if free > LOW_DISK else "full-size models take 2 to 15 GB each",
    )
