"""The one trainer of bridges: `mmx train-bridge`. What a task supplies to it is a `BridgeTask`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict

import torch

from mmx.bridges.base import Bridge
from mmx.data.manifest import read_manifest
from mmx.data.pairs import load_pairs
from mmx.decoders.base import keep_small
from mmx.decoders.load import load_decoder
from mmx.errors import UsageError
from mmx.models.store import seal
from mmx.tasks import find
from mmx.tasks import task as task_named
from mmx.training.bridges.base import BridgeRecipe, BridgeTask, Setting, data_sha256
from mmx.training.bridges.prior import train_prior
from mmx.training.card import bridge_card
from mmx.training.engine.identity import weights_digest
from mmx.training.engine.loop import Run


def train_bridge(recipe: BridgeRecipe) -> None:
    """Train, and export `run/config.json`, `run/model.safetensors` and the card. The same recipe resumes.

    Raises InputError, ModelError, UsageError; Interrupted and NonFiniteError, with the last good state on disk.
    """
    row, team, looks = task_named(recipe.task, having="trainer"), recipe.team, "image" in recipe.sources
    kind: type[BridgeTask] = find(row.fused_trainer if looks else row.trainer)
    _ = recipe.init  # that it is not there is said now, not after hours of reading
    decoder = load_decoder(recipe.decoder, row.target.modality).to(team.device)
    before = weights_digest(*decoder.networks())
    manifest = read_manifest(recipe.data, recipe.task, stream=True)
    sides = kind.sides(recipe, decoder, manifest)
    loaded = load_pairs(
        manifest, sides.frontend, sides.targets, team, cache=recipe.cache, quiet=recipe.quiet, looks=looks
    )
    task = kind(Setting(recipe, decoder, sides, loaded))
    recipe.begin(task.module.bridge, type(task.module.bridge))
    run = recipe.start(task, kind.schedule)
    metrics = run.fit(quiet=recipe.quiet)
    if not run.step:
        raise UsageError(
            "--max-minutes: time was up before the first step",
            hint="give it longer; what was read of the data is in the cache",
        )
    bridge = task.finished(run.averaged())
    if bridge.config.prior is not None and bridge.prior is None:
        train_prior(task, bridge, run)
    assert weights_digest(*decoder.networks()) == before, "the frozen decoder was trained, too"
    export_bridge(bridge, task, run, metrics, loaded.skipped)


def export_bridge(
    bridge: Bridge, task: BridgeTask, run: Run, metrics: dict[str, float], skipped: Sequence[str]
) -> None:
    """config.json, model.safetensors (float16, a prior's matrices float8), metrics.json, README.md and SHA256SUMS into
    the run's folder."""
    recipe, pairs = task.recipe, task.pairs
    if not recipe.team.leads:
        return
    stored = type(bridge)(bridge.config)
    stored.load_state_dict(bridge.state_dict())
    stored.half().save_pretrained(recipe.run)
    keep_small(recipe.run / "model.safetensors", "prior.")
    config = asdict(run.config)
    measured = {
        "steps": run.step,
        "batch_size": config["batch_size"] * recipe.team.world * config["accumulate"],
        "seed": config["seed"],
        "loss": recipe.loss,
        "prior_steps": recipe.prior_steps if bridge.config.prior else 0,
        "decoder": recipe.decoder.name,
        "command": recipe.command,
        "notes": recipe.notes,
        "data_sha256": data_sha256(pairs),
        "pairs": {
            "sources": len(pairs.sources),
            "targets": len(pairs.targets),
            "direct": pairs.direct,
        },
        "skipped": len(skipped),
        "hardware": f"{recipe.team.world} x {recipe.team.device}, {platform.machine()}, torch {torch.__version__}",
        "val": metrics,
    }
    (recipe.run / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (recipe.run / "README.md").write_text(bridge_card(bridge.config, measured), encoding="utf8")
    seal(recipe.run)
