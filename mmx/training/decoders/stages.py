"""The stages of a decoder's training, one after the other in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmx.decoders.base import fingerprint
from mmx.training.engine.checkpoint import states
from mmx.training.engine.loop import LoopConfig, Run
from mmx.training.engine.task import Task


class StagedRecipe(Protocol):
    """What the recipes of all decoders have. teacher: a trained decoder's teacher folder, to stay in its space."""

    run: Path
    quiet: bool

    def schedule(self, stage: str) -> LoopConfig: ...


class Stages:
    """Trains task by task into folders of their names; each comes after all before it, and starts again when one of
    them changed.

    identity: what the recipe was asked for that changes weights, and digests of what it reads.
    """

    def __init__(self, recipe: StagedRecipe, identity: dict[str, Any]) -> None:
        self.recipe, self.identity = recipe, identity
        self.runs: list[Run] = []

    def train(self, task: Task) -> nn.Module:
        """The task's module, trained to the end, in eval mode and on the recipe's device."""
        recipe = self.recipe
        run = Run(
            task, recipe.schedule(task.name), recipe.run / task.name, identity=self.identity, after=tuple(self.runs)
        )
        run.fit(quiet=recipe.quiet)
        self.runs.append(run)
        return run.averaged()

    def metrics(self, stages: Iterable[str]) -> dict[str, dict[str, float]]:
        """What each stage measured on val last."""
        return {stage: last_metrics(self.recipe.run / stage) for stage in stages}


def last_metrics(run: Path) -> dict[str, float]:
    """What a stage measured on val last; nothing where it was not trained here."""
    found = states(run)
    return json.loads((found[-1] / "state.json").read_text(encoding="utf8"))["metrics"] if found else {}


def teacher_digest(folder: Path | None) -> str | None:
    """sha256 of the teacher that a recipe was given, or None."""
    return None if folder is None else fingerprint(folder, (".",))


def data_digest(tensors: Iterable[Tensor], meta: list[dict]) -> str:
    """sha256 over training data in memory: its tensors and the metadata of each item."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
