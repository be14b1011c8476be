"""`mmx train-bridge sound2img`: sounds into an image decoder's space."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.base import Bridge
from mmx.bridges.points import PointBridge
from mmx.bridges.sound import SoundBridge
from mmx.data.pairs import either_view
from mmx.training.bridges.augment import crops, mixed, some_narrow, spec_augment
from mmx.training.bridges.base import Setting
from mmx.training.bridges.points import PointTask
from mmx.training.bridges.prior import measure_targets
from mmx.training.engine.loop import LoopConfig
from mmx.training.losses import LOSSES

PROMPT = "a photo of a {}"


class BridgeModule(nn.Module):
    """A bridge and the temperature that is learned beside it."""

    def __init__(self, bridge: PointBridge, *, learned_scale: bool) -> None:
        super().__init__()
        self.bridge = bridge
        self.log_scale = nn.Parameter(torch.tensor(2.66 if learned_scale else 0.0), requires_grad=learned_scale)

    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss."""
        return self.log_scale.exp()


class SoundBridgeTask(PointTask):
    """Sounds land where photos of the same event are (Sound2Scene, Sung-Bin et al. 2023); with several processes, over
    all their items.

    Where labels pair, each sound meets `draws` photos a step, and sounds are mixed in pairs: a mixture belongs to the
    photos of both.
    """

    schedule = LoopConfig(2500, 64, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=150, validate_steps=250)
    bridge_kind = SoundBridge
    prior_sizes: ClassVar = {"width": 512, "depth": 6}
    drawing: ClassVar = {"prior_guidance": 2.5, "prior_temperature": 0.6}  # chosen on val, by the judge
    draws, mixup = 4, 0.5

    def __init__(self, setting: Setting) -> None:
        names = setting.loaded.manifest.label_names if setting.decoder.teacher.has_texts else ()
        texts = {label: PROMPT.format(label) for label in names}
        super().__init__(setting, labels=texts)
        if texts:
            self.label_texts = self.decoder.teacher.embed_texts(list(texts.values())).clone()
        loss = self.recipe.loss
        self.contrast = LOSSES.get(loss)
        if self.pairs.direct:
            self.draws, self.mixup = 1, 0.0
        if not self.frontend.can_mix:
            self.mixup = 0.0
        torch.manual_seed(self.recipe.seed)
        own = self.config if loss == "prior" else replace(self.config, prior=None)
        self.module = BridgeModule(self.bridge_kind(own), learned_scale=loss == "infonce")
        self.module.bridge.use(self.frontend)
        if loss == "prior":
            measure_targets(self.module.bridge.prior, self.pairs)

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        draws = torch.rand(size, 11, generator=generator)
        (picks, first), (others, second) = (self.pairs.draw(size, generator) for _sound in range(2))
        meet = torch.rand(size, 2, self.draws, generator=generator)[part]
        draws, picks, first, others, second = (x[part] for x in (draws, picks, first, others, second))
        share = torch.where(draws[:, 0] < self.mixup, draws[:, 1] * 0.5, torch.zeros(()))
        features = crops(self.frontend, self.pairs.sources, picks, draws[:, 2])
        if self.mixup:
            features = mixed(features, crops(self.frontend, self.pairs.sources, others, draws[:, 3]), share)
        if self.frontend.can_mix:
            features = some_narrow(features, draws[:, 9:11])
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
        """The encoder is taught by the diffusion prior that it conditions, and by nothing else (Ramesh et al. 2022,
        section 2.2)."""
        points = F.normalize(self.points(batch).float(), dim=-1).repeat_interleave(self.draws, 0)
        return self.module.bridge.prior.loss(batch["targets"].float(), points, generator), {}

    def finished(self, module: nn.Module) -> Bridge:
        self.config = replace(self.config, logit_scale=round(float(module.scale().detach()), 4))
        return super().finished(module)
