"""What a run was started as: another recipe on its folder is refused by the field that differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmx.decoders.base import tensors_digest
from mmx.errors import UsageError
from mmx.options import FREE

SAID = {"data": "data of sha256", "processes": "a number of processes of", "as_": "--as"}  # not as options are
SHOWN = 60  # characters of a value in an error


def weights_digest(*modules: nn.Module) -> str:
    """sha256 over the weights and buffers that modules hold in memory: the same before and after, where nothing trained
    them.
    """
    return tensors_digest(
        {f"{number}.{name}": value for number, module in enumerate(modules) for name, value in _held(module)}
    )


def _held(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def recipe_identity(recipe: Any, **digests: str | None) -> dict[str, Any]:
    """All fields of a recipe, a dataclass, but those that say that they are free; and digests of what it starts from.

    A field that is added to a recipe counts until it says that it does not.
    """
    chosen = {option.name: getattr(recipe, option.name) for option in fields(recipe) if option.metadata != FREE}
    return chosen | digests


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as it comes back from a state.json."""
    return json.loads(json.dumps(identity))


def refuse_another(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError where a field has another value than the run in `folder` was started with.

    What either lacks, agrees.
    """
    for name, value in plain(now).items():
        if name in was and was[name] != value:
            raise UsageError(
                f"{folder} was started with {_said(name, was[name])}, not with {_said(name, value)}",
                hint="give the same value to resume, or another output folder",
            )


def _said(name: str, value: Any) -> str:
    if name == "bf16":
        return f"--mixed-precision {'bf16' if value else 'no'}"
    text = value if isinstance(value, str) else json.dumps(value)
    text = text[:12] if len(text) == 64 else text  # a sha256
    return f"{SAID.get(name, '--' + name.replace('_', '-'))} {text if len(text) <= SHOWN else text[:SHOWN] + '...'}"
