"""`mmx train-bridge voice2face`: voices into the face feature space."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.voice import VoiceBridge
from mmx.data.digests import Digests
from mmx.data.fill import Space, resolve
from mmx.data.manifest import Manifest
from mmx.data.pairs import Rows, either_view
from mmx.data.sharing import Group
from mmx.decoders.base import Decoder
from mmx.decoders.unclip import ImageDecoder
from mmx.digest import cache_root
from mmx.errors import ModelError, UsageError
from mmx.nets.face import GENDERS
from mmx.training.bridges.augment import crops, other_room, spec_augment
from mmx.training.bridges.base import BridgeRecipe, Setting, Sides
from mmx.training.bridges.measures import VAL, points_of, spread
from mmx.training.bridges.points import PointTask
from mmx.training.engine.loop import LoopConfig
from mmx.training.losses import LOSSES, nt_xent, speech2face
from mmx.training.teachers.ge2e import WIDTH, VoicePrints, load_speaker_encoder


class VoiceBridgeTask(PointTask):
    """Voices land where faces of their label are (Speech2Face, Oh et al. 2019); a face is drawn anew for each voice
    each step.

    Two windows of a voice are drawn. That they lie together, and apart from other voices, is a second, small objective
    (`speaker_weight`): with attribute labels alone all voices of a label would be one point. With a teacher, what it
    hears in a voice can be read off what the bridge heard by a linear map, which is not kept: few voices teach no one
    what tells voices apart.
    """

    schedule = LoopConfig(1500, 48, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=250)
    bridge_kind = VoiceBridge
    prior_sizes: ClassVar = {"width": 256, "depth": 4}
    drawing: ClassVar = {"prior_guidance": 2.5, "prior_temperature": 0.8}  # chosen on val, by the judge
    speaker_weight, speaker_temperature, contrast_scale, print_weight = 0.1, 0.2, 10.0, 1.0

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        if isinstance(decoder, ImageDecoder) and not decoder.teacher.names_faces:
            raise ModelError(f"{recipe.decoder.name} is no face decoder", hint="mmx train-decoder face makes one")
        if recipe.loss == "speech2face" and not decoder.teacher.names_faces:
            raise UsageError(
                f"--loss speech2face: {recipe.decoder.name} does not name what it sees in a face",
                hint="--loss infonce",
            )
        if recipe.teacher:
            _heard_by_teacher(recipe, manifest)
        return super().sides(recipe, decoder, manifest)

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.face = self.decoder.teacher.net if self.decoder.teacher.names_faces else None
        names = setting.loaded.manifest.label_names
        known = self.face is not None and set(names) == set(GENDERS)
        self.genders = torch.tensor([GENDERS.index(name) for name in names]) if known else None
        torch.manual_seed(self.recipe.seed)
        self.prints = prints_of(self.recipe, self.pairs.sources) if self.recipe.teacher else None
        self.module = _Module(VoiceBridge(replace(self.config, prior=None)), taught=self.prints is not None)
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
        gather, encoder = self.team.gather, self.module.bridge.encoder
        if self.prints is None:
            raw, told = encoder(batch["features"]), {}
        else:
            heard = encoder.pooled(batch["features"])
            raw, told = encoder.head(heard), {"teacher": self._apart(heard, batch["voices"])}
        points = gather(F.normalize(raw.float(), dim=-1))
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
        total = main + self.speaker_weight * speaker + self.print_weight * sum(told.values())
        parts = {self.recipe.loss: main, "speaker": speaker} | told
        return total, {name: value.item() for name, value in parts.items()}

    def _apart(self, heard: Tensor, voices: Tensor) -> Tensor:
        """1 - cosine of what is read off both windows of voices (2B, C) and what the teacher hears in each (B,)."""
        wanted = self.prints[voices.cpu()].to(heard.device).repeat_interleave(2, 0)
        return 1 - F.cosine_similarity(self.module.told(heard).float(), wanted, dim=1).mean()

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
    def __init__(self, bridge: VoiceBridge, *, taught: bool = False) -> None:
        super().__init__()
        self.bridge = bridge
        self.told = nn.Linear(bridge.config.channels[-1], WIDTH) if taught else None


def _heard_by_teacher(recipe: BridgeRecipe, manifest: Manifest) -> None:
    """Let the teacher hear what of the data it has not. Raises ModelError where it is not installed, OutputError,
    UsageError."""
    load_speaker_encoder()
    if manifest.remote:
        raise UsageError("--teacher hears files that are here", hint="fetch the shards first")
    root = recipe.cache or cache_root()
    group = Group.of(root, recipe.team)
    resolve(manifest.sources.items, Space.of(root, VoicePrints()), Digests(root), group)


def prints_of(recipe: BridgeRecipe, voices: Rows) -> Tensor:
    """What the teacher hears in voices, less its mean: (N, 256)."""
    cache = Space.of(recipe.cache or cache_root(), VoicePrints()).cache
    found = cache.rows(cache.find(voices.cache.keys_of(voices.rows.numpy())).tolist())[:, 0].float()
    return found - found.mean(0)


def _speaker_loss(points: Tensor, voices: Tensor, temperature: float) -> Tensor:
    """NT-Xent between the two windows of each voice; one that occurs twice in a batch counts once.

    points (2B, D): both windows of voice 0, then of voice 1, and so on; voices (B,).
    """
    first = (voices[:, None] == voices[None, :]).int().argmax(1) == torch.arange(len(voices), device=voices.device)
    pairs = points.unflatten(0, (-1, 2))[first]
    return nt_xent(torch.cat((pairs[:, 0], pairs[:, 1])), temperature)
