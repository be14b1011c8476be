"""What every `mmx train-bridge` shares: the recipe, the frozen side, retrieval on val, and the folder that comes out."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.base import Bridge
from mmx.data.pairs import Loaded, Pairs
from mmx.decoders.base import fingerprint, keep_small
from mmx.models.store import Located, seal
from mmx.training.card import bridge_card
from mmx.training.engine.loop import LoopConfig, Run
from mmx.training.engine.parallel import Team
from mmx.training.losses import Comparison

VAL = 1000  # pairs that retrieval is measured on, at most
STATISTICS = 16_384  # targets that mean and std are taken of


@dataclass
class BridgeRecipe:
    """Everything `mmx train-bridge` was asked for."""

    task: str
    data: str
    run: Path
    decoder: Located
    encoder: Located | None = None
    lora: int = 0  # rank of the adapters on the encoder; 0: it is frozen
    sources: tuple[str, ...] = ("sound",)
    architecture: str = "cnn"
    sizes: dict[str, Any] = field(default_factory=dict)
    loss: str = ""
    smoothing: float = 0.0
    hard_negatives: int = 0
    normalize_targets: bool = False
    prior_steps: int = 6000
    schedule: dict[str, Any] = field(default_factory=dict)  # what was asked of LoopConfig's fields
    max_minutes: float = float("inf")
    cache: Path | None = None
    team: Team = field(default_factory=Team)
    quiet: bool = False
    events: bool = False
    tensorboard: bool = False
    command: str = ""
    notes: str = ""

    def loop(self, usual: LoopConfig, **changes: Any) -> LoopConfig:
        """A stage's schedule with what was asked for."""
        asked = {name: value for name, value in self.schedule.items() if value is not None} | changes
        steps = asked.get("max_steps", usual.max_steps)
        return replace(usual, **asked, warmup=min(usual.warmup, steps // 10 + 1), device=self.team.device)

    def prior_loop(self, usual: LoopConfig) -> LoopConfig:
        """The prior's schedule: its own size and rate, the run's seed and precision."""
        steps = self.prior_steps
        return replace(
            usual,
            max_steps=steps,
            warmup=min(usual.warmup, steps // 10 + 1),
            seed=self.schedule.get("seed") or 0,
            bf16=self.schedule.get("bf16", True),
            device=self.team.device,
        )

    def comparison(self, pairs: Pairs, norm: float) -> Comparison:
        """Where the loss compares points with targets."""
        return Comparison(norm, target_statistics(pairs) if self.normalize_targets else None)

    def start(self, task: Any, usual: LoopConfig, stage: str = "bridge") -> Run:
        """A stage's run, restored where it was begun."""
        config = self.prior_loop(usual) if stage == "prior" else self.loop(usual)
        return Run(task, config, self.run / stage, self.team, events=self.events, tensorboard=self.tensorboard)


def decoder_fingerprint(at: Located) -> str:
    """sha256 over all weights and configs of a decoder, and of its companion: what must not change while a bridge trains."""
    return "".join(fingerprint(folder, (".",)) for folder in (at.folder, at.companion) if folder)


def has_texts(decoder: Any) -> bool:
    """Whether a decoder's space has a text tower, by which labels can be named."""
    return getattr(decoder.teacher, "texts", True) is not None


def measured_spec(decoder: Any, pairs: Pairs) -> dict[str, Any]:
    """A decoder's spec; the mean norm of full-size decoders' targets, which their folders do not tell, is measured."""
    spec = decoder.spec.as_dict()
    if decoder.spec.mean_norm == 1.0:
        some = torch.stack([pairs.targets.get(i)[0].float() for i in spread(len(pairs.targets), VAL).tolist()])
        spec["mean_norm"] = round(some.norm(dim=1).mean().item(), 4)
    return spec


def target_statistics(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the targets, of a sample where there are many."""
    some = torch.stack([pairs.targets.get(i)[0].float() for i in spread(len(pairs.targets), STATISTICS).tolist()])
    return some.mean(0), some.std(0) + 1e-6


def spread(count: int, limit: int, seed: int = 0) -> Tensor:
    """At most `limit` of `count` positions, drawn without order, the same each time."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


@torch.no_grad()
def retrieval(points: Tensor, targets: Tensor, own: Tensor, others: Tensor) -> dict[str, float]:
    """How well sources find targets that belong to them, and targets sources.

    points (N, D), targets (M, D), any norm; own (N,), others (M,): labels. Recall at 1, 5 and 10 both ways, the mean rank of the
    first right target (1 is best), alignment and uniformity (Wang and Isola 2020), and what guessing gives.
    """
    x, y = F.normalize(points.float(), dim=-1), F.normalize(targets.float(), dim=-1)
    right = own[:, None] == others[None, :]
    scores = x @ y.T
    found = {}
    for way, order, hit in (("", scores, right), ("back_", scores.T, right.T)):
        ranked = hit.gather(1, order.argsort(1, descending=True))
        for k in (1, 5, 10):
            found[f"val_{way}recall_at_{k}"] = ranked[:, :k].any(1).float().mean().item()
        if not way:
            found["val_mean_rank"] = (ranked.int().argmax(1) + 1).float().mean().item()
    found["val_alignment"] = (2 - 2 * scores[right]).mean().item()
    apart = torch.pdist(x[:512]).square()
    found["val_uniformity"] = torch.exp(-2 * apart).mean().log().item() if len(apart) else 0.0
    found["val_chance"] = right.float().mean().item()
    return found


@torch.no_grad()
def oracle_recall(pairs: Pairs, picks: Tensor) -> float:
    """Recall at 1 when each target is sought by the same target mirrored: what a perfect bridge might reach."""
    both = torch.stack([pairs.targets.get(i).float() for i in picks.tolist()])
    return retrieval(both[:, -1], both[:, 0], pairs.targets.labels[picks], pairs.targets.labels[picks])[
        "val_recall_at_1"
    ]


def export_bridge(bridge: Bridge, recipe: BridgeRecipe, run: Run, metrics: dict[str, float], loaded: Loaded) -> None:
    """config.json, model.safetensors (float16, a prior's matrices float8), metrics.json, README.md and SHA256SUMS into the run's folder."""
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
        "data_sha256": data_sha256(loaded.train),
        "pairs": {
            "sources": len(loaded.train.sources),
            "targets": len(loaded.train.targets),
            "direct": loaded.train.direct,
        },
        "skipped": len(loaded.skipped),
        "hardware": f"{recipe.team.world} x {recipe.team.device}, {platform.machine()}, torch {torch.__version__}",
        "val": metrics,
    }
    (recipe.run / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (recipe.run / "README.md").write_text(bridge_card(bridge.config, measured), encoding="utf8")
    seal(recipe.run)


def data_sha256(pairs: Pairs) -> str:
    """One digest over what a run was trained on: the content keys of both sides and their labels."""
    digest = hashlib.sha256()
    for side in (pairs.sources, pairs.targets):
        keys = side.cache.keys_of(side.rows.numpy())
        order = keys.argsort(kind="stable")
        digest.update(keys[order].tobytes() + side.labels.numpy()[order].tobytes())
    return digest.hexdigest()
