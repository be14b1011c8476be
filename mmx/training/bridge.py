"""`mmx train-bridge sound2img`: a contrastive bridge and its diffusion prior, trained in one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.base import Bridge, BridgeConfig
from mmx.bridges.sound import SoundBridge
from mmx.decoders.base import fingerprint
from mmx.decoders.image import PARTS, ImageDecoder
from mmx.errors import InputError
from mmx.media.image import grid
from mmx.nets.prior import EmbeddingPrior
from mmx.nets.sound import FRAMES, log_mel, standardise
from mmx.store import Located, seal
from mmx.training.card import bridge_card
from mmx.training.data import Photos, Sounds, load_photos, load_sounds, load_stem_pairs, members
from mmx.training.image import encode_all
from mmx.training.loop import LoopConfig, Run
from mmx.training.losses import infonce, infonce_l2

LOSSES = {"infonce": infonce, "infonce-l2": infonce_l2}


@dataclass(frozen=True)
class Pairs:
    """What a bridge is trained on: sounds and target embeddings that share a label.

    targets (M, D): raw teacher embeddings. sound_labels (S,), target_labels (M,): equal where they belong together.
    texts (M, D) or None: the unit embedding of each target's caption, a second condition for the prior.
    """

    sounds: Sounds
    sound_labels: Tensor
    targets: Tensor
    target_labels: Tensor
    texts: Tensor | None = None


def label_pairs(sounds: Sounds, photos: Photos, decoder: ImageDecoder, labels: Sequence[str]) -> Pairs:
    """Pair by concept: any sound of a concept with any photo of it, drawn anew each epoch."""
    keep = [i for i, meta in enumerate(photos.meta) if meta.get("concept") in labels]
    chosen = Photos(photos.pixels[keep], [photos.meta[i] for i in keep])
    net = decoder.teacher.net
    captions = sorted({f"a photo of a {meta['concept']}" for meta in chosen.meta})
    table = dict(zip(captions, decoder.teacher.embed_texts(captions), strict=True))
    texts = torch.stack([table[f"a photo of a {meta['concept']}"] for meta in chosen.meta]).repeat(2, 1)
    target_labels = torch.tensor([labels.index(meta["concept"]) for meta in chosen.meta]).repeat(2)
    return Pairs(
        sounds,
        torch.tensor([labels.index(meta["concept"]) for meta in sounds.meta]),
        encode_all(chosen, net.encode_image),
        target_labels,
        texts,
    )


class SoundBridgeTask:
    """InfoNCE between sounds and photos of the same event (Sound2Scene, Sung-Bin et al. 2023).

    Each sound meets `draws` photos a step. Sounds are mixed in pairs (mixup), and a mixture belongs to the photos of both.
    """

    name = "bridge"
    draws, mixup = 4, 0.5

    def __init__(
        self,
        pairs: Pairs,
        val: Pairs | None,
        config: BridgeConfig,
        label_texts: Tensor | None,
        *,
        loss: str = "infonce",
        seed: int = 0,
    ) -> None:
        self.pairs, self.val, self.label_texts, self.contrast = pairs, val, label_texts, LOSSES[loss]
        torch.manual_seed(seed)
        self.module = _BridgeModule(SoundBridge(replace(config, prior=None)), learned_scale=loss == "infonce")
        bridge = self.module.bridge
        with torch.no_grad():
            self.mels = [log_mel(torch.from_numpy(wave.samples)).half() for wave in pairs.sounds.waves]
            self.val_features = [bridge.prepare(wave) for wave in val.sounds.waves] if val else []
        self.by_label = members(pairs.sound_labels)
        self.targets_by_label = members(pairs.target_labels)
        self.labels = torch.tensor(sorted(set(self.by_label) & set(self.targets_by_label)))

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        first, second = (self.labels[torch.randint(len(self.labels), (size,), generator=generator)] for _ in range(2))
        share = torch.rand(size, generator=generator) * 0.5
        share = torch.where(torch.rand(size, generator=generator) < self.mixup, share, torch.zeros(()))
        crops = [
            random_windows(self.mels, draw_members(self.by_label, labels, generator), generator)
            for labels in (first, second)
        ]
        power = (1 - share)[:, None, None] * crops[0].exp() + share[:, None, None] * crops[1].exp()
        photos = torch.tensor(draw_members(self.targets_by_label, first.repeat_interleave(self.draws), generator))
        of_photo = self.pairs.target_labels[photos]
        weights = (1 - share)[:, None] * (first[:, None] == of_photo) + share[:, None] * (second[:, None] == of_photo)
        return {
            "features": spec_augment(standardise(torch.log(power)), generator),
            "targets": self.pairs.targets[photos],
            "positives": weights,
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        points = self.module.bridge.encoder(batch["features"]).float()
        contrast = self.contrast(
            points, batch["targets"].float(), scale=self.module.scale(), positives=batch["positives"]
        )
        return contrast, {"scale": self.module.scale().item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        if not self.val_features:
            return {}
        points = torch.cat(
            [module.bridge(torch.stack(self.val_features[i : i + 64])) for i in range(0, len(self.val_features), 64)]
        )
        truth = self.val.sound_labels
        if self.label_texts is None:  # pairs without names: find a sound's own photo among those of the split
            hits = (points @ self.val.targets[: len(truth)].T).argmax(1) == truth
            return {"val_recall_at_1": hits.float().mean().item(), "val_chance": 1 / len(truth)}
        guesses = (points @ self.label_texts.T).argmax(1)
        recalls = [(guesses[truth == label] == label).float().mean() for label in truth.unique().tolist()]
        return {"val_top1": torch.stack(recalls).mean().item(), "val_chance": 1 / len(self.label_texts)}

    def preview(self, module: nn.Module, path: Path) -> None:
        """Nothing to show before there is a prior."""


class PriorTask:
    """The diffusion prior over teacher embeddings, conditioned on the trained bridge's points (DALL-E 2, Ramesh et al. 2022).

    points: for each sound, the points (K, D) of K of its windows. A part of the items see the photo's caption instead, so
    that texts can drive the same prior, and all see a little noise, so that it forgives the bridge the difference between
    sounds that it was trained on and sounds that it was not.
    """

    name = "prior"
    text_share, condition_noise = 0.3, 0.6

    def __init__(
        self,
        pairs: Pairs,
        points: list[Tensor],
        bridge: Bridge,
        *,
        seed: int = 0,
        preview: Callable[[Bridge, Path], None] | None = None,
    ) -> None:
        self.pairs, self.points, self.bridge, self.show = pairs, points, bridge, preview
        torch.manual_seed(seed)
        self.module = EmbeddingPrior(pairs.targets.shape[1], points[0].shape[1], **bridge.config.prior)
        self.module.mean.copy_(pairs.targets.mean(0))
        self.module.std.copy_(pairs.targets.std(0) + 1e-6)
        self.by_label = members(pairs.sound_labels)
        self.targets_by_label = members(pairs.target_labels)
        self.labels = torch.tensor(sorted(set(self.by_label) & set(self.targets_by_label)))

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        labels = self.labels[torch.randint(len(self.labels), (size,), generator=generator)]
        photos = torch.tensor(draw_members(self.targets_by_label, labels, generator))
        windows = torch.rand(size, generator=generator).tolist()
        conditions = torch.stack(
            [
                self.points[pick][int(place * len(self.points[pick]))]
                for pick, place in zip(draw_members(self.by_label, labels, generator), windows, strict=True)
            ]
        )
        if self.pairs.texts is not None:
            from_text = torch.rand(size, 1, generator=generator) < self.text_share
            conditions = torch.where(from_text, self.pairs.texts[photos], conditions)
        strength = self.condition_noise * torch.rand(size, 1, generator=generator) / conditions.shape[1] ** 0.5
        noise = strength * torch.randn(conditions.shape, generator=generator)
        return {"targets": self.pairs.targets[photos], "conditions": F.normalize(conditions + noise, dim=-1)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self.module.loss(batch["targets"], batch["conditions"], generator), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {}

    def preview(self, module: nn.Module, path: Path) -> None:
        if self.show is not None:
            self.bridge.prior = module
            self.show(self.bridge, path)
            self.bridge.prior = None


def random_windows(mels: Sequence[Tensor], picks: Sequence[int], generator: torch.Generator) -> Tensor:
    """One random window of 3 s (64, 300) of each picked log-mel: (B, 64, 300)."""
    places = torch.rand(len(picks), generator=generator).tolist()
    windows = []
    for pick, place in zip(picks, places, strict=True):
        start = int(place * (mels[pick].shape[1] - FRAMES + 1))
        windows.append(mels[pick][:, start : start + FRAMES])
    return torch.stack(windows).float()


def draw_members(groups: dict[int, Tensor], labels: Tensor, generator: torch.Generator) -> list[int]:
    """A random member of each label's group."""
    places = torch.rand(len(labels), generator=generator).tolist()
    return [int(groups[k][int(p * len(groups[k]))]) for k, p in zip(labels.tolist(), places, strict=True)]


@torch.inference_mode()
def window_points(mels: Sequence[Tensor], bridge: Bridge, windows: int = 16, seed: int = 0) -> list[Tensor]:
    """The unit points (K, D) of K random windows of every train sound's log-mel."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for pick in range(len(mels)):
        features = standardise(random_windows(mels, [pick] * windows, generator))
        found.append(F.normalize(bridge.encoder(features), dim=-1))
    return found


class _BridgeModule(nn.Module):
    def __init__(self, bridge: SoundBridge, *, learned_scale: bool) -> None:
        super().__init__()
        self.bridge = bridge
        self.log_scale = nn.Parameter(torch.tensor(2.66 if learned_scale else 0.0), requires_grad=learned_scale)

    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss."""
        return self.log_scale.exp()


def spec_augment(features: Tensor, generator: torch.Generator, bands: int = 12, frames: int = 60) -> Tensor:
    """Silence one band of mels and one stretch of frames in each item (SpecAugment, Park et al. 2019). (B, M, F)."""
    count, mels, length = features.shape
    for axis, limit, size in ((1, bands, mels), (2, frames, length)):
        width = torch.rand(count, generator=generator) * limit
        start = torch.rand(count, generator=generator) * (size - width)
        index = torch.arange(size)
        hidden = (index >= start[:, None]) & (index < (start + width)[:, None])
        features = features.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], 0.0)
    return features


DRAWING = {"prior_guidance": 2.5, "prior_temperature": 0.6}  # chosen on val, by the judge
PRIOR = {"width": 384, "depth": 5}
PROMPT = "a photo of a {}"
SCHEDULE = LoopConfig(
    max_steps=2500, batch_size=64, lr=1.5e-3, weight_decay=0.05, ema=0.998, warmup=150, validate_steps=250
)
PRIOR_SCHEDULE = LoopConfig(
    max_steps=6000, batch_size=512, lr=1e-3, weight_decay=0.01, ema=0.999, warmup=200, validate_steps=1000
)


@dataclass
class BridgeRecipe:
    """Everything `mmx train-bridge` was asked for."""

    data: Path
    run: Path
    decoder: Located
    max_steps: int = SCHEDULE.max_steps
    batch_size: int = SCHEDULE.batch_size
    lr: float = SCHEDULE.lr
    seed: int = 0
    device: str = "cpu"
    loss: str = "infonce"
    prior_steps: int = PRIOR_SCHEDULE.max_steps
    max_minutes: float = float("inf")
    quiet: bool = False
    command: str = ""
    notes: str = ""


def load_pairs(folder: Path, decoder: ImageDecoder) -> tuple[Pairs, Pairs | None, list[str]]:
    """A data folder → train pairs, val pairs, and the labels where there are any. Shards, or audios/ and images/."""
    size = decoder.teacher.net.image_size
    if (folder / "audios").is_dir() and (folder / "images").is_dir():
        sounds, photos = load_stem_pairs(folder, size)
        splits = [_stem_pairs(sounds.split(name), photos.split(name), decoder) for name in ("train", "val")]
        return splits[0], splits[1] if len(splits[1].sounds) else None, []
    sounds, photos = load_sounds(folder), load_photos(folder, size)
    labels = sorted(
        {meta["concept"] for meta in sounds.meta if meta.get("concept")}
        & {meta["concept"] for meta in photos.meta if meta.get("concept")}
    )
    if not labels:
        raise InputError(f"{folder}: no sound and photo share a `concept`")
    sounds = Sounds(
        *map(
            list,
            zip(
                *[(w, m) for w, m in zip(sounds.waves, sounds.meta, strict=True) if m.get("concept") in labels],
                strict=True,
            ),
        )
    )
    train = label_pairs(sounds.split("train"), photos.split("train"), decoder, labels)
    val = sounds.split("val")
    return train, label_pairs(val, photos.split("val"), decoder, labels) if len(val) else None, labels


def _stem_pairs(sounds: Sounds, photos: Photos, decoder: ImageDecoder) -> Pairs:
    targets = (
        encode_all(photos, decoder.teacher.net.encode_image) if len(photos) else torch.zeros(0, decoder.spec.shape[0])
    )
    own = torch.arange(len(sounds))
    return Pairs(sounds, own, targets, own.repeat(2))


def train_sound_bridge(recipe: BridgeRecipe) -> Path:
    """Train, export `run/config.json`, `run/model.safetensors` and the card, and return `run`. The same recipe resumes."""
    decoder = ImageDecoder.load(recipe.decoder.folder)
    before = fingerprint(recipe.decoder.folder, PARTS)
    pairs, val, labels = load_pairs(recipe.data, decoder)
    texts = {label: PROMPT.format(label) for label in labels}
    config = BridgeConfig(
        task="sound2img",
        spec=decoder.spec.as_dict(),
        labels=texts,
        prior=PRIOR if recipe.prior_steps else None,
        **DRAWING,
    )
    points = decoder.teacher.embed_texts(list(texts.values())).clone() if labels else None
    task = SoundBridgeTask(pairs, val, config, points, loss=recipe.loss, seed=recipe.seed)
    run = Run(
        task, schedule_of(SCHEDULE, recipe, recipe.max_steps, recipe.batch_size, recipe.lr), recipe.run / "bridge"
    )
    metrics = run.fit(quiet=recipe.quiet, max_minutes=recipe.max_minutes)
    module = run.averaged()
    encoder: SoundBridge = module.bridge
    encoder.config = replace(config, logit_scale=round(float(module.scale().detach()), 4))
    if config.prior is not None:
        encoder.prior = train_prior(recipe, pairs, task.mels, encoder, Previews(decoder, val) if val else None)
    assert fingerprint(recipe.decoder.folder, PARTS) == before, "the frozen decoder changed on disk"
    export_bridge(encoder, recipe, metrics, run.step)
    return recipe.run


def train_prior(
    recipe: BridgeRecipe, pairs: Pairs, mels: Sequence[Tensor], encoder: Bridge, preview: Callable | None
) -> nn.Module:
    """The second half of a bridge's run: its diffusion prior over the decoder's conditioning."""
    task = PriorTask(pairs, window_points(mels, encoder), encoder, seed=recipe.seed, preview=preview)
    schedule = schedule_of(PRIOR_SCHEDULE, recipe, recipe.prior_steps, PRIOR_SCHEDULE.batch_size, PRIOR_SCHEDULE.lr)
    run = Run(task, schedule, recipe.run / "prior")
    run.fit(quiet=recipe.quiet, max_minutes=recipe.max_minutes)
    return run.averaged()


def schedule_of(base: LoopConfig, recipe: BridgeRecipe, steps: int, batch_size: int, lr: float) -> LoopConfig:
    return replace(
        base,
        max_steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=recipe.seed,
        device=recipe.device,
        warmup=min(base.warmup, steps // 10 + 1),
    )


def export_bridge(bridge: Bridge, recipe: BridgeRecipe, metrics: dict[str, float], steps: int) -> None:
    """config.json, model.safetensors (float16), metrics.json, README.md and SHA256SUMS into the run's folder."""
    stored = type(bridge)(bridge.config)
    stored.load_state_dict(bridge.state_dict())
    stored.half().save_pretrained(recipe.run)
    measured = {
        "steps": steps,
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "loss": recipe.loss,
        "prior_steps": recipe.prior_steps,
        "decoder": recipe.decoder.name,
        "command": recipe.command,
        "notes": recipe.notes,
        "val": metrics,
    }
    (recipe.run / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (recipe.run / "README.md").write_text(bridge_card(bridge.config, measured), encoding="utf8")
    seal(recipe.run)


class Previews:
    """Eight val sounds through the bridge and the frozen decoder, while the bridge trains."""

    def __init__(self, decoder: ImageDecoder, val: Pairs) -> None:
        self.decoder = decoder
        order = torch.randperm(len(val.sounds), generator=torch.Generator().manual_seed(0))[:8].tolist()
        self.waves = [val.sounds.waves[i] for i in order]

    def __call__(self, bridge: Bridge, path: Path) -> None:
        pictures = []
        for wave in self.waves:
            generator = torch.Generator().manual_seed(0)
            sample = bridge.sample(bridge(bridge.prepare(wave)[None])[0], generator)
            pictures += self.decoder.decode(sample[None], generators=[generator])
        grid(pictures, columns=4).save(path)
