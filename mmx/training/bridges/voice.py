"""`mmx train-bridge voice2face`: a voice encoder into the face feature space, and its diffusion prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.base import BridgeConfig
from mmx.bridges.frontends import Frontend
from mmx.bridges.voice import VoiceBridge
from mmx.data.features import Embeddings
from mmx.data.manifest import read_manifest
from mmx.data.pairs import Pairs, either_view, load_pairs
from mmx.decoders.unclip import ImageDecoder
from mmx.errors import ModelError, UsageError
from mmx.nets.face import GENDERS, first_layer
from mmx.training.bridges.augment import crops, other_room, points_of, spec_augment
from mmx.training.bridges.base import VAL, BridgeRecipe, decoder_fingerprint, export_bridge, measured_spec, spread
from mmx.training.bridges.prior import Previews, train_prior
from mmx.training.bridges.sound import sound_features, validate_points
from mmx.training.engine.loop import LoopConfig
from mmx.training.losses import LOSSES, nt_xent, speech2face
from mmx.translate.load import open_decoder

SCHEDULE = LoopConfig(1500, 48, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=250)
PRIOR = {"width": 256, "depth": 4}
DRAWING = {"prior_guidance": 2.5, "prior_temperature": 0.8}  # chosen on val, by the judge


class VoiceBridgeTask:
    """Voices land where faces of their label are (Speech2Face, Oh et al. 2019); a face is drawn anew for each voice each step.

    Two windows of a voice are drawn. That they lie together, and apart from other voices, is a second, small objective
    (`speaker_weight`): with attribute labels alone all voices of a label would be one point.
    """

    name = "bridge"
    speaker_weight, speaker_temperature, contrast_scale = 0.1, 0.2, 10.0

    def __init__(
        self,
        recipe: BridgeRecipe,
        pairs: Pairs,
        val: Pairs | None,
        config: BridgeConfig,
        frontend: Frontend,
        decoder: ImageDecoder,
        genders: Tensor | None,
        seed: int = 0,
        show: Previews | None = None,
    ) -> None:
        self.show = show
        self.recipe, self.pairs, self.val, self.decoder, self.team = recipe, pairs, val, decoder, recipe.team
        self.face = decoder.teacher.net if names_faces(decoder) else None
        self.genders = genders if self.face is not None else None
        self.compared = recipe.comparison(pairs, config.spec["mean_norm"])
        torch.manual_seed(seed)
        self.module = _Module(VoiceBridge(replace(config, prior=None)))
        self.frontend = frontend
        self.module.bridge.use(frontend)

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        picks, labels = self.pairs.draw(size, generator)
        draws = torch.rand(size, 2, 7, generator=generator)[part]
        colours = torch.randn(size, 2, 4, generator=generator)[part]
        meet = torch.rand(size, 2, generator=generator)[part]
        picks, labels = picks[part], labels[part]
        views = []
        for view in range(2):
            features = crops(self.frontend, self.pairs.sources, picks, draws[:, view, 0])
            if self.frontend.can_mix:
                features = other_room(features, draws[:, view, 1:3], colours[:, view])
            features = self.frontend.finish(features)
            views.append(spec_augment(features, draws[:, view, 3:]) if self.frontend.can_mix else features)
        faces = self.pairs.targets_of(picks, labels, meet[:, 0])
        return {
            "features": torch.stack(views, 1).flatten(0, 1),
            "targets": either_view(self.pairs, faces, meet[:, 1]),
            "labels": labels,
            "voices": picks,
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        gather = self.team.gather
        points = gather(F.normalize(self.module.bridge.encoder(batch["features"]).float(), dim=-1))
        targets = gather(batch["targets"].float()).repeat_interleave(2, 0)
        labels, voices = gather(batch["labels"]).repeat_interleave(2), gather(batch["voices"])
        if self.recipe.loss == "speech2face":
            main = self._speech2face(points * points.shape[1] ** 0.5, targets)
        else:
            main = LOSSES[self.recipe.loss](
                *self.compared(points, targets),
                scale=self.contrast_scale,
                positives=labels[:, None] == labels[None, :],
                smoothing=self.recipe.smoothing,
                hard=self.recipe.hard_negatives,
            )
        speaker = _speaker_loss(points, voices, self.speaker_temperature)
        return main + self.speaker_weight * speaker, {self.recipe.loss: main.item(), "speaker": speaker.item()}

    def _speech2face(self, raw: Tensor, targets: Tensor) -> Tensor:
        unet = self.decoder.pipeline.unet
        return speech2face(
            raw,
            targets,
            first=(first_layer(unet, raw), first_layer(unet, targets)),
            answers=(self.face.classify(raw), self.face.classify(targets)),
        )

    def validate(self, module: nn.Module) -> dict[str, float]:
        found = validate_points(self.val, module.bridge, None)
        if self.val is not None and self.genders is not None:
            picks = spread(len(self.val.sources), VAL)
            points = points_of(module.bridge, self.val.sources, picks).to(self.team.device)
            raw = points * points.shape[1] ** 0.5
            truth = self.genders[self.val.sources.labels[picks]]
            found["val_gender"] = (self.face.gender_shares(raw).argmax(1).cpu() == truth).float().mean().item()
        return found

    def preview(self, module: nn.Module, path: Path) -> None:
        """Val voices through the bridge, without a prior, and the frozen decoder."""
        if self.show is not None:
            self.show(module.bridge, path)


def names_faces(decoder: Any) -> bool:
    """Whether a decoder's teacher is one that names gender and age, as the starter's does."""
    return hasattr(getattr(decoder.teacher, "net", None), "classify")


class _Module(nn.Module):
    def __init__(self, bridge: VoiceBridge) -> None:
        super().__init__()
        self.bridge = bridge


def _speaker_loss(points: Tensor, voices: Tensor, temperature: float) -> Tensor:
    """NT-Xent between the two windows of each voice; one that occurs twice in a batch counts once.

    points (2B, D): both windows of voice 0, then of voice 1, and so on; voices (B,).
    """
    first = (voices[:, None] == voices[None, :]).int().argmax(1) == torch.arange(len(voices), device=voices.device)
    pairs = points.unflatten(0, (-1, 2))[first]
    return nt_xent(torch.cat((pairs[:, 0], pairs[:, 1])), temperature)


def train_voice_bridge(recipe: BridgeRecipe) -> None:
    """Train and export, as `train_sound_bridge` does."""
    decoder = open_decoder(recipe.decoder, ImageDecoder)
    if isinstance(decoder, ImageDecoder) and not names_faces(decoder):
        raise ModelError(f"{recipe.decoder.name} is no face decoder", hint="mmx train-decoder face makes one")
    if recipe.loss == "speech2face" and not names_faces(decoder):
        raise UsageError(
            f"--loss speech2face: {recipe.decoder.name} does not name what it sees in a face", hint="--loss infonce"
        )
    decoder.to(recipe.team.device)
    before = decoder_fingerprint(recipe.decoder)
    manifest = read_manifest(recipe.data, recipe.task, stream=True)
    frontend, about = sound_features(recipe, voice=True)
    loaded = load_pairs(manifest, frontend, Embeddings(decoder), recipe.team, cache=recipe.cache, quiet=recipe.quiet)
    config = BridgeConfig(
        task="voice2face",
        spec=measured_spec(decoder, loaded.train),
        prior=PRIOR if recipe.prior_steps else None,
        **DRAWING,
        **about,
    )
    known = set(manifest.label_names) == set(GENDERS)
    genders = torch.tensor([GENDERS.index(name) for name in manifest.label_names]) if known else None
    preview = Previews(decoder, loaded.val) if loaded.val else None
    task = VoiceBridgeTask(
        recipe, loaded.train, loaded.val, config, frontend, decoder, genders, recipe.schedule.get("seed") or 0, preview
    )
    run = recipe.start(task, SCHEDULE)
    metrics = run.fit(quiet=recipe.quiet, max_minutes=recipe.max_minutes)
    bridge: VoiceBridge = run.averaged().bridge.cpu()
    bridge.config = config
    decoder.to("cpu")
    if config.prior is not None:
        bridge.prior = train_prior(recipe, loaded.train, bridge, None, preview)
    assert decoder_fingerprint(recipe.decoder) == before, "the frozen decoder changed on disk"
    export_bridge(bridge, recipe, run, metrics, loaded)
