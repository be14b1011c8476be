"""`mmx train-bridge voice2face`: voices into the face feature space."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.voice import VoiceBridge
from mmx.data.manifest import Manifest
from mmx.data.pairs import either_view
from mmx.decoders.base import Decoder
from mmx.decoders.unclip import ImageDecoder
from mmx.errors import ModelError, UsageError
from mmx.nets.face import GENDERS
from mmx.training.bridges.augment import crops, other_room, spec_augment
from mmx.training.bridges.base import BridgeRecipe, Setting, Sides
from mmx.training.bridges.measures import VAL, points_of, spread
from mmx.training.bridges.points import PointTask
from mmx.training.engine.loop import LoopConfig
from mmx.training.losses import LOSSES, nt_xent, speech2face


class VoiceBridgeTask(PointTask):
    """Voices land where faces of their label are (Speech2Face, Oh et al. 2019); a face is drawn anew for each voice
    each step.

    Two windows of a voice are drawn. That they lie together, and apart from other voices, is a second, small objective
    (`speaker_weight`): with attribute labels alone all voices of a label would be one point.
    """

    schedule = LoopConfig(1500, 48, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=250)
    bridge_kind = VoiceBridge
    prior_sizes: ClassVar = {"width": 256, "depth": 4}
    drawing: ClassVar = {"prior_guidance": 2.5, "prior_temperature": 0.8}  # chosen on val, by the judge
    speaker_weight, speaker_temperature, contrast_scale = 0.1, 0.2, 10.0

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        if isinstance(decoder, ImageDecoder) and not decoder.teacher.names_faces:
            raise ModelError(f"{recipe.decoder.name} is no face decoder", hint="mmx train-decoder face makes one")
        if recipe.loss == "speech2face" and not decoder.teacher.names_faces:
            raise UsageError(
                f"--loss speech2face: {recipe.decoder.name} does not name what it sees in a face",
                hint="--loss infonce",
            )
        return super().sides(recipe, decoder, manifest)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.face = self.decoder.teacher.net if self.decoder.teacher.names_faces else None
        names = setting.loaded.manifest.label_names
        known = self.face is not None and set(names) == set(GENDERS)
        self.genders = torch.tensor([GENDERS.index(name) for name in names]) if known else None
        torch.manual_seed(self.recipe.seed)
        self.module = _Module(VoiceBridge(replace(self.config, prior=None)))
        self.module.bridge.use(self.frontend)

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
        return speech2face(
            raw,
            targets,
            first=(self.decoder.first_layer(raw), self.decoder.first_layer(targets)),
            answers=(self.face.classify(raw), self.face.classify(targets)),
        )

    def validate(self, module: nn.Module) -> dict[str, float]:
        found = super().validate(module)
        if self.val is not None and self.genders is not None:
            picks = spread(len(self.val.sources), VAL)
            points = points_of(module.bridge, self.val.sources, picks).to(self.team.device)
            raw = points * points.shape[1] ** 0.5
            truth = self.genders[self.val.sources.labels[picks]]
            found["val_gender"] = (self.face.gender_shares(raw).argmax(1).cpu() == truth).float().mean().item()
        return found


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
