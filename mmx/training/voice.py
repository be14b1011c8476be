"""`mmx train-bridge voice2face`: a voice encoder into the face feature space, and its diffusion prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.base import BridgeConfig
from mmx.bridges.voice import VoiceBridge
from mmx.decoders.base import fingerprint
from mmx.decoders.image import PARTS, ImageDecoder
from mmx.errors import InputError, ModelError
from mmx.nets.face import first_layer
from mmx.nets.sound import log_mel, standardise
from mmx.training.bridge import (
    BridgeRecipe,
    Pairs,
    Previews,
    draw_members,
    export_bridge,
    random_windows,
    schedule_of,
    spec_augment,
    train_prior,
)
from mmx.training.data import Photos, Sounds, load_photos, load_sounds, load_stem_pairs, members, spoken
from mmx.training.image import encode_all
from mmx.training.loop import LoopConfig, Run
from mmx.training.losses import infonce, nt_xent, speech2face

LOSSES = ("speech2face", "infonce")
SCHEDULE = LoopConfig(1500, 48, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=250)
PRIOR = {"width": 384, "depth": 4}


def other_room(windows: Tensor, generator: torch.Generator) -> Tensor:
    """The same voice over another line: each log-mel window (B, 64, F) is coloured, some are cut at telephone band or put in noise."""
    count, mels, _ = windows.shape
    at = torch.linspace(0, 1, mels)
    waves = torch.stack([at - 0.5, *(torch.cos(k * torch.pi * at) for k in (1, 2, 3))])
    colour = (torch.randn(count, len(waves), generator=generator) * 0.8) @ waves
    top = windows.amax((1, 2), keepdim=True)
    floor = top - 5 - 9 * torch.rand(count, 1, 1, generator=generator)  # nats below the loudest bin: 22 to 61 dB
    noisy = torch.logaddexp(windows + colour[:, :, None], floor.expand_as(windows))
    telephone = (torch.rand(count, 1, 1, generator=generator) < 0.2) & ((at > 0.72) | (at < 0.06))[None, :, None]
    return torch.where(telephone, noisy.amin((1, 2), keepdim=True), noisy)


class VoiceBridgeTask:
    """Voices land where faces of their label are (Speech2Face, Oh et al. 2019); a face is drawn anew for each voice each step.

    Two windows of a voice are drawn. That they lie together, and apart from other voices, is a second, small objective
    (`speaker_weight`): with attribute labels alone all voices of a label would be one point.
    """

    name = "bridge"
    speaker_weight, speaker_temperature, infonce_scale = 0.1, 0.2, 10.0

    def __init__(
        self, pairs: Pairs, val: Pairs | None, config: BridgeConfig, decoder: ImageDecoder, *, loss: str, seed: int = 0
    ) -> None:
        self.pairs, self.val, self.kind, self.decoder = pairs, val, loss, decoder
        self.face = decoder.teacher.net
        torch.manual_seed(seed)
        self.module = _Module(VoiceBridge(replace(config, prior=None)))
        bridge = self.module.bridge
        with torch.no_grad():
            self.mels = [log_mel(torch.from_numpy(wave.samples)).half() for wave in pairs.sounds.waves]
            self.val_features = [bridge.prepare(wave) for wave in val.sounds.waves] if val else []
        self.by_label = members(pairs.sound_labels)
        self.targets_by_label = members(pairs.target_labels)
        self.labels = torch.tensor(sorted(set(self.by_label) & set(self.targets_by_label)))

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        labels = self.labels[torch.randint(len(self.labels), (size,), generator=generator)]
        voices = draw_members(self.by_label, labels, generator)
        faces = torch.tensor(draw_members(self.targets_by_label, labels, generator))
        views = [
            spec_augment(standardise(other_room(random_windows(self.mels, voices, generator), generator)), generator)
            for _view in range(2)
        ]
        same = torch.tensor(voices)[:, None] == torch.tensor(voices)[None, :]
        return {
            "features": torch.cat(views),
            "targets": self.pairs.targets[faces].repeat(2, 1),
            "labels": labels.repeat(2),
            "same": same,
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        points = F.normalize(self.module.bridge.encoder(batch["features"]).float(), dim=-1)
        targets = batch["targets"].float()
        if self.kind == "infonce":
            positives = batch["labels"][:, None] == batch["labels"][None, :]
            main = infonce(points, targets, scale=self.infonce_scale, positives=positives)
        else:
            raw = points * self.face.dim**0.5
            unet = self.decoder.pipeline.unet
            main = speech2face(
                raw,
                targets,
                first=(first_layer(unet, raw), first_layer(unet, targets)),
                answers=(self.face.classify(raw), self.face.classify(targets)),
            )
        speaker = _speaker_loss(points, batch["same"], self.speaker_temperature)
        return main + self.speaker_weight * speaker, {self.kind: main.item(), "speaker": speaker.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        if not self.val_features:
            return {}
        points = module.bridge(torch.stack(self.val_features))
        truth = self.val.sound_labels
        nearest = self.val.target_labels[: len(self.val.targets)][
            (points @ F.normalize(self.val.targets, dim=-1).T).argmax(1)
        ]
        found = {"val_recall_at_1": (nearest == truth).float().mean().item()}
        found["val_chance"] = (self.val.target_labels[None, :] == truth[:, None]).float().mean().item()
        if self.pairs.texts is None and set(truth.tolist()) <= {0, 1}:
            shares = self.face.gender_shares(points * self.face.dim**0.5)
            found["val_gender"] = (shares.argmax(1) == truth).float().mean().item()
        return found

    def preview(self, module: nn.Module, path: Path) -> None:
        """Nothing to show before there is a prior."""


class _Module(nn.Module):
    def __init__(self, bridge: VoiceBridge) -> None:
        super().__init__()
        self.bridge = bridge


def _speaker_loss(points: Tensor, same: Tensor, temperature: float) -> Tensor:
    """NT-Xent between the two windows of each voice. points (2B, D); a batch in which a voice occurs twice counts it once."""
    first = same.int().argmax(1) == torch.arange(len(same), device=same.device)
    return nt_xent(torch.cat([half[first] for half in points.chunk(2)]), temperature)


def label_of(meta: dict, key: str) -> str | None:
    """The value that pairs a voice with a face."""
    value = meta.get(key)
    return None if value is None else str(value)


def load_voice_pairs(folder: Path, decoder: ImageDecoder) -> tuple[Pairs, Pairs | None, list[str]]:
    """Voices and faces of a folder → train pairs, val pairs and the names of the labels.

    Shards voices-*.tar and faces-*.tar are paired by `identity` where both carry it, else by `gender`. audios/ and images/ with
    equal stems are pairs of one person each.
    """
    size = decoder.teacher.net.image_size
    encode = decoder.teacher.net.encode_image
    if (folder / "audios").is_dir() and (folder / "images").is_dir():
        sounds, photos = load_stem_pairs(folder, size)
        sounds = Sounds([spoken(w, m["key"]) for w, m in zip(sounds.waves, sounds.meta, strict=True)], sounds.meta)
        key = "key"
    else:
        sounds, photos = load_sounds(folder, "voices"), load_photos(folder, size, "faces")
        key = "identity" if _shared(sounds.meta, photos.meta, "identity") else "gender"
    names = sorted(_shared(sounds.meta, photos.meta, key))
    if not names:
        raise InputError(f"{folder}: no voice and face share an `identity` or a `gender`")
    splits = []
    for split in ("train", "val"):
        voices, faces = _kept(sounds.split(split), key, names), _kept_photos(photos.split(split), key, names)
        if not len(voices) or not len(faces):
            splits.append(None)
            continue
        splits.append(
            Pairs(
                voices,
                torch.tensor([names.index(str(meta[key])) for meta in voices.meta]),
                encode_all(faces, encode),
                torch.tensor([names.index(str(meta[key])) for meta in faces.meta]).repeat(2),
            )
        )
    if splits[0] is None:
        raise InputError(f"{folder}: the train split has no voice or no face")
    return splits[0], splits[1], names if key == "gender" else []


def _shared(a: Sequence[dict], b: Sequence[dict], key: str) -> set[str]:
    return {label_of(meta, key) for meta in a} & {label_of(meta, key) for meta in b} - {None}


def _kept(sounds: Sounds, key: str, names: Sequence[str]) -> Sounds:
    keep = [i for i, meta in enumerate(sounds.meta) if label_of(meta, key) in names]
    return Sounds([sounds.waves[i] for i in keep], [sounds.meta[i] for i in keep])


def _kept_photos(photos: Photos, key: str, names: Sequence[str]) -> Photos:
    keep = [i for i, meta in enumerate(photos.meta) if label_of(meta, key) in names]
    return Photos(photos.pixels[keep], [photos.meta[i] for i in keep])


def train_voice_bridge(recipe: BridgeRecipe) -> Path:
    """Train, export and return `recipe.run`, as `train_sound_bridge` does."""
    decoder = ImageDecoder.load(recipe.decoder.folder)
    if not hasattr(decoder.teacher.net, "classify"):
        raise ModelError(f"{recipe.decoder.name} is no face decoder", hint="mmx train-decoder face makes one")
    before = fingerprint(recipe.decoder.folder, PARTS)
    pairs, val, _names = load_voice_pairs(recipe.data, decoder)
    config = BridgeConfig(
        task="voice2face",
        spec=decoder.spec.as_dict(),
        prior=PRIOR if recipe.prior_steps else None,
        prior_guidance=1.5,
        prior_temperature=0.8,
    )
    task = VoiceBridgeTask(pairs, val, config, decoder, loss=recipe.loss, seed=recipe.seed)
    schedule = schedule_of(SCHEDULE, recipe, recipe.max_steps, recipe.batch_size, recipe.lr)
    run = Run(task, schedule, recipe.run / "bridge")
    metrics = run.fit(quiet=recipe.quiet, max_minutes=recipe.max_minutes)
    encoder: VoiceBridge = run.averaged().bridge
    encoder.config = config
    if config.prior is not None:
        encoder.prior = train_prior(recipe, pairs, task.mels, encoder, Previews(decoder, val) if val else None)
    assert fingerprint(recipe.decoder.folder, PARTS) == before, "the frozen decoder changed on disk"
    export_bridge(encoder, recipe, metrics, run.step)
    return recipe.run
