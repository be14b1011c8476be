"""Training state on disk: one folder, renamed into place in one step; safetensors and JSON only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmx.errors import ModelError

PREFIX = "state-"
SCRATCH = ".state-"  # of what is being written or removed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flatten_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's tensors under `parameter name/state key`."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of `flatten_optimizer`."""
    parameters = dict(module.named_parameters())
    for name, value in tensors.items():
        parameter_name, key = name.rsplit("/", 1)
        parameter = parameters[parameter_name]
        value = value if key == "step" else value.to(parameter.device)
        optimizer.state[parameter][key] = value


def save_state(run: Path, step: int, tensors: dict[str, dict[str, Tensor]], meta: dict) -> Path:
    """Write `run/state-STEP-NUMBER/`, whole or not at all, and only then drop what was there before."""
    run.mkdir(parents=True, exist_ok=True)
    before = states(run)
    number = _order(before[-1])[0] + 1 if before else 1
    folder, scratch = run / f"{PREFIX}{step:09d}-{number:06d}", run / f"{SCRATCH}{os.getpid()}"
    _clear(run)
    scratch.mkdir()
    digests = {}
    for name, group in tensors.items():
        path = scratch / f"{name}.safetensors"
        save_file({key: value.detach().cpu().contiguous() for key, value in group.items()}, path)
        digests[path.name] = _sha256(path)
        _sync(path)
    path = scratch / "state.json"
    path.write_text(json.dumps(meta | {"step": step, "sha256": digests}, indent=1), encoding="utf8")
    _sync(path)
    os.rename(scratch, folder)
    _sync(run)
    for old in before:
        # a folder is not removed in one step: under its own name half of it would be taken for a state
        os.rename(old, run / f"{SCRATCH}{old.name}")
    _clear(run)
    return folder


def _clear(run: Path) -> None:
    """Remove what a save that was killed left behind."""
    for left in run.glob(f"{SCRATCH}*"):
        shutil.rmtree(left)


def _order(state: Path) -> tuple[int, int]:
    """The place of a state among the saves of its run, and its step. Earlier versions did not number their saves."""
    step, _, number = state.name.removeprefix(PREFIX).partition("-")
    return int(number or 0), int(step)


def states(run: Path) -> list[Path]:
    """The complete states of a run, in the order in which they were saved."""
    return sorted((path for path in run.glob(f"{PREFIX}*") if (path / "state.json").exists()), key=_order)


def load_state(run: Path) -> tuple[dict[str, dict[str, Tensor]], dict] | None:
    """The newest state of a run, or None. Raises ModelError when a file was changed since it was saved."""
    found = states(run)
    if not found:
        return None
    folder = found[-1]
    meta = json.loads((folder / "state.json").read_text(encoding="utf8"))
    tensors = {}
    for name, digest in meta["sha256"].items():
        if _sha256(folder / name) != digest:
            raise ModelError(
                f"{folder / name} was changed after it was saved", hint=f"delete {folder} to start this stage again"
            )
        tensors[name.removesuffix(".safetensors")] = load_file(folder / name)
    return tensors, meta
