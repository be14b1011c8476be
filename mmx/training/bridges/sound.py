"""`mmx train-bridge sound2img`: sounds into an image decoder's space, and the diffusion prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.base import BridgeConfig
from mmx.bridges.frontends import Frontend, FrozenVector, LogMel, Wave
from mmx.bridges.sound import SoundBridge
from mmx.data.features import Embeddings
from mmx.data.manifest import read_manifest
from mmx.data.pairs import Pairs, either_view, load_pairs
from mmx.decoders.unclip import ImageDecoder
from mmx.errors import InputError, UsageError
from mmx.nets.lora import adaptable
from mmx.training.bridges.augment import crops, mixed, points_of, spec_augment
from mmx.training.bridges.base import (
    VAL,
    BridgeRecipe,
    decoder_fingerprint,
    export_bridge,
    has_texts,
    measured_spec,
    oracle_recall,
    retrieval,
    spread,
)
from mmx.training.bridges.prior import Previews, measure_targets, train_prior
from mmx.training.engine.loop import LoopConfig
from mmx.training.losses import LOSSES
from mmx.translate.load import open_decoder

DRAWING = {"prior_guidance": 2.5, "prior_temperature": 0.6}  # chosen on val, by the judge
PRIOR = {"width": 512, "depth": 6}
PROMPT = "a photo of a {}"
SCHEDULE = LoopConfig(2500, 64, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=150, validate_steps=250)


class BridgeModule(nn.Module):
    """A bridge and the temperature that is learned beside it."""

    def __init__(self, bridge: SoundBridge, *, learned_scale: bool) -> None:
        super().__init__()
        self.bridge = bridge
        self.log_scale = nn.Parameter(torch.tensor(2.66 if learned_scale else 0.0), requires_grad=learned_scale)

    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss."""
        return self.log_scale.exp()


class SoundBridgeTask:
    """Sounds land where photos of the same event are (Sound2Scene, Sung-Bin et al. 2023); with several processes, over all their items.

    Where labels pair, each sound meets `draws` photos a step, and sounds are mixed in pairs: a mixture belongs to the photos of both.
    """

    name = "bridge"
    draws, mixup = 4, 0.5

    def __init__(
        self,
        recipe: BridgeRecipe,
        pairs: Pairs,
        val: Pairs | None,
        config: BridgeConfig,
        frontend: Frontend,
        label_texts: Tensor | None,
        seed: int = 0,
        show: Callable[[SoundBridge, Path], None] | None = None,
    ) -> None:
        self.recipe, self.pairs, self.val, self.label_texts, self.team = recipe, pairs, val, label_texts, recipe.team
        self.contrast, self.show = LOSSES.get(recipe.loss), show
        self.compared = recipe.comparison(pairs, config.spec["mean_norm"])
        if pairs.direct:
            self.draws, self.mixup = 1, 0.0
        if not frontend.can_mix:
            self.mixup = 0.0
        torch.manual_seed(seed)
        own = config if recipe.loss == "prior" else replace(config, prior=None)
        self.module = BridgeModule(SoundBridge(own), learned_scale=recipe.loss == "infonce")
        self.frontend = frontend
        self.module.bridge.use(frontend)
        if recipe.loss == "prior":
            measure_targets(self.module.bridge.prior, pairs)

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        draws = torch.rand(size, 9, generator=generator)
        (picks, first), (others, second) = (self.pairs.draw(size, generator) for _sound in range(2))
        meet = torch.rand(size, 2, self.draws, generator=generator)[part]
        draws, picks, first, others, second = (x[part] for x in (draws, picks, first, others, second))
        share = torch.where(draws[:, 0] < self.mixup, draws[:, 1] * 0.5, torch.zeros(()))
        features = crops(self.frontend, self.pairs.sources, picks, draws[:, 2])
        if self.mixup:
            features = mixed(features, crops(self.frontend, self.pairs.sources, others, draws[:, 3]), share)
        features = self.frontend.finish(features)
        if self.frontend.can_mix:
            features = spec_augment(features, draws[:, 4:8])
        photos = self.pairs.targets_of(
            picks.repeat_interleave(self.draws), first.repeat_interleave(self.draws), meet[:, 0].flatten()
        )
        return {
            "picks": picks,
            "features": features,
            "targets": either_view(self.pairs, photos, meet[:, 1].flatten()),
            "labels": torch.stack((first, second), 1),
            "share": share,
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.recipe.loss == "prior":
            return self._through_the_prior(batch, generator)
        gather = self.team.gather
        points = gather(self.points(batch).float())
        targets, labels, share = gather(batch["targets"].float()), gather(batch["labels"]), gather(batch["share"])
        of_photo = labels[:, 0].repeat_interleave(self.draws)
        positives = (1 - share)[:, None] * (labels[:, :1] == of_photo) + share[:, None] * (labels[:, 1:] == of_photo)
        contrast = self.contrast(
            *self.compared(points, targets),
            scale=self.module.scale(),
            positives=positives,
            smoothing=self.recipe.smoothing,
            hard=self.recipe.hard_negatives,
        )
        return contrast, {"scale": self.module.scale().item()}

    def points(self, batch: dict[str, Tensor]) -> Tensor:
        """A batch's sources → points (B, D), any norm."""
        return self.module.bridge.encoder(batch["features"])

    def _through_the_prior(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The encoder is taught by the diffusion prior that it conditions, and by nothing else (Ramesh et al. 2022, section 2.2)."""
        points = F.normalize(self.points(batch).float(), dim=-1).repeat_interleave(self.draws, 0)
        return self.module.bridge.prior.loss(batch["targets"].float(), points, generator), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return validate_points(self.val, module.bridge, self.label_texts)

    def preview(self, module: nn.Module, path: Path) -> None:
        """Val sources through the bridge, without a prior, and the frozen decoder."""
        if self.show is not None:
            self.show(module.bridge, path)


def validate_points(val: Pairs | None, bridge: SoundBridge, label_texts: Tensor | None) -> dict[str, float]:
    """Retrieval both ways on val; where labels have texts, how often a sound's own is the nearest; oracle and chance."""
    if val is None:
        return {}
    picks = spread(len(val.sources), VAL)
    points, labels = points_of(bridge, val.sources, picks), val.sources.labels[picks]
    theirs = picks if val.direct else spread(len(val.targets), VAL)
    targets = torch.stack([val.targets.get(i)[0].float() for i in theirs.tolist()])
    found = retrieval(points, targets, labels, val.targets.labels[theirs])
    found["val_oracle_recall_at_1"] = oracle_recall(val, theirs)
    if label_texts is not None:
        guesses = (points @ label_texts.T).argmax(1)
        found["val_top1"] = (
            torch.stack([(guesses[labels == k] == k).float().mean() for k in labels.unique()]).mean().item()
        )
        found["val_top1_chance"] = 1 / len(label_texts)
    return found


def sound_features(recipe: BridgeRecipe, *, voice: bool = False) -> tuple[Frontend, dict]:
    """How sounds are heard for a recipe, and what the bridge's config says of it. Raises UsageError."""
    if recipe.encoder is None:
        return LogMel(voice=voice), {"architecture": recipe.architecture, "sizes": recipe.sizes}
    listener = Listener.load(recipe.encoder, recipe.team.device)
    about = {
        "architecture": "frozen",
        "sizes": recipe.sizes | {"inputs": listener.dim},
        "source": {"name": listener.name, "fingerprint": listener.fingerprint},
    }
    if not recipe.lora:
        return FrozenVector(listener, voice=voice), about
    layers = adaptable(listener.hearing)
    if not layers:
        raise UsageError(
            f"--lora: {listener.name} has no attention layers that can be adapted", hint="leave --lora out"
        )
    sizes = about["sizes"] | {"rank": recipe.lora, "layers": layers}
    return Wave(listener, voice=voice), about | {"architecture": "lora", "sizes": sizes}


def train_sound_bridge(recipe: BridgeRecipe) -> None:
    """Train, and export `run/config.json`, `run/model.safetensors` and the card. The same recipe resumes."""
    decoder = open_decoder(recipe.decoder, ImageDecoder)
    before = decoder_fingerprint(recipe.decoder)
    manifest = read_manifest(recipe.data, recipe.task, stream=True)
    looks = "image" in recipe.sources
    if looks and manifest.direct and manifest.seconds is None:
        raise InputError(
            f"{recipe.data}: no pictures to hear the sounds with",
            hint="a folder hints/ with equal stems, or a column source2 in the manifest",
        )
    frontend, about = sound_features(recipe)
    loaded = load_pairs(
        manifest, frontend, Embeddings(decoder), recipe.team, cache=recipe.cache, quiet=recipe.quiet, looks=looks
    )
    texts = {label: PROMPT.format(label) for label in manifest.label_names} if has_texts(decoder) else {}
    config = BridgeConfig(
        task="sound2img",
        spec=measured_spec(decoder, loaded.train),
        labels=texts,
        prior=PRIOR if recipe.prior_steps or recipe.loss == "prior" else None,
        sources=recipe.sources,
        **DRAWING,
        **about,
    )
    seed = recipe.schedule.get("seed") or 0
    points = decoder.teacher.embed_texts(list(texts.values())).clone() if texts else None
    if looks:
        from mmx.training.bridges.fusion import FusionTask as SoundTask  # it goes on from the task here
    else:
        SoundTask = SoundBridgeTask
    preview = Previews(decoder, loaded.val) if loaded.val else None
    task = SoundTask(recipe, loaded.train, loaded.val, config, frontend, points, seed, preview)
    run = recipe.start(task, SCHEDULE)
    metrics = run.fit(quiet=recipe.quiet, max_minutes=recipe.max_minutes)
    module = run.averaged().cpu()
    bridge: SoundBridge = module.bridge
    bridge.config = replace(config, logit_scale=round(float(module.scale().detach()), 4))
    if config.prior is not None and recipe.loss != "prior":
        bridge.prior = train_prior(recipe, loaded.train, bridge, points, preview)
    assert decoder_fingerprint(recipe.decoder) == before, "the frozen decoder changed on disk"
    export_bridge(bridge, recipe, run, metrics, loaded)
