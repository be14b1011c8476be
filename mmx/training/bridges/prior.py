"""The second half of a bridge's run: the diffusion prior, by which one source gives many conditionings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.points import PointBridge
from mmx.data.pairs import Pairs, either_view, others_of
from mmx.media.image import grid
from mmx.nets.prior import EmbeddingPrior
from mmx.training.bridges.augment import crops
from mmx.training.bridges.base import BridgeTask
from mmx.training.bridges.measures import spread, target_statistics
from mmx.training.engine.loop import LoopConfig, Run

SCHEDULE = LoopConfig(6000, 512, 1e-3, weight_decay=0.01, ema=0.999, warmup=200, validate_steps=1000)
POINTS = 65_536  # of sources that are held in memory: up to 16 windows of each, fewer where there are more sources


class PriorTask:
    """The diffusion prior over teacher embeddings, conditioned on the trained bridge's points (DALL-E 2, Ramesh et al.
    2022).

    A part of the items see the label's text instead, so that texts can drive the same prior, and all see a little
    noise, so that it forgives the bridge the difference between sources that it was trained on and sources that it was
    not.
    """

    name = "prior"
    lower_is_better = ()
    text_share, condition_noise = 0.3, 0.6

    def __init__(
        self,
        pairs: Pairs,
        bridge: PointBridge,
        texts: Tensor | None,
        *,
        seed: int = 0,
        preview: Callable[[PointBridge, Path], None] | None = None,
        begin: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """begin: gives the fresh network its first weights, where they are not random."""
        self.pairs, self.bridge, self.texts, self.show = pairs, bridge, texts, preview
        self.points = window_points(pairs, bridge)
        torch.manual_seed(seed)
        dim = pairs.targets.get(0).shape[-1]
        self.module = EmbeddingPrior(dim, self.points.shape[-1], **bridge.config.prior)
        if begin is not None:
            begin(self.module)
        measure_targets(self.module, pairs)

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        picks, labels = self.pairs.draw(size, generator)
        places = torch.rand(5, size, generator=generator)
        noise = torch.randn(size, self.points.shape[-1], generator=generator)
        mine = picks[part]
        points = self.points[mine, (places[0, part] * self.points.shape[1]).long()].float()
        if self.texts is not None:
            points = torch.where((places[1, part] < self.text_share)[:, None], self.texts[labels[part]], points)
        noisy = points + self.condition_noise * places[2, part, None] / points.shape[1] ** 0.5 * noise[part]
        targets = self.pairs.targets_of(mine, labels[part], places[4, part])
        return {"targets": either_view(self.pairs, targets, places[3, part]), "conditions": F.normalize(noisy, dim=-1)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self.module.loss(batch["targets"], batch["conditions"], generator), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {}

    def preview(self, module: nn.Module, path: Path) -> None:
        if self.show is not None:
            self.bridge.prior = module
            self.show(self.bridge, path)
            self.bridge.prior = None


def measure_targets(prior: EmbeddingPrior, pairs: Pairs) -> None:
    """Set a prior's mean and std to those of the targets."""
    mean, std = target_statistics(pairs)
    prior.mean.copy_(mean)
    prior.std.copy_(std)


@torch.inference_mode()
def window_points(pairs: Pairs, bridge: PointBridge, seed: int = 0) -> Tensor:
    """Unit points (S, K, D) float16 of K random windows of every source; K is 16 or what POINTS leaves."""
    count = len(pairs.sources)
    windows = max(1, min(16, POINTS // count)) if bridge.frontend.count > 1 else 1
    generator = torch.Generator().manual_seed(seed)
    device = next(bridge.parameters()).device
    found = []
    for pick in range(count):
        places = torch.rand(windows, generator=generator)
        features = crops(bridge.frontend, pairs.sources, torch.full((windows,), pick), places)
        points = F.normalize(bridge.encoder(bridge.frontend.finish(features).to(device)), dim=-1)
        if bridge.looks:  # of every other window with a picture, so that the prior knows both
            points = torch.where(
                torch.arange(windows)[:, None] % 2 == 0, points.cpu(), _seen(pairs, bridge, pick, points, generator)
            )
        found.append(points.half().cpu())
    return torch.stack(found)


def _seen(pairs: Pairs, bridge: PointBridge, pick: int, points: Tensor, generator: torch.Generator) -> Tensor:
    """Points (K, D) of one source's windows, each with a picture beside it."""
    count = len(points)
    draws = torch.rand(count, 2, generator=generator)
    picks, labels = torch.full((count,), pick), pairs.sources.labels[pick].expand(count)
    seen = others_of(pairs, picks, labels, draws[:, 0], draws[:, 1]).to(points.device)
    return bridge.fused(points, seen, torch.ones(count, 2, dtype=torch.bool, device=points.device)).cpu()


class Previews:
    """Eight val sources through the bridge and the frozen decoder, while the bridge trains."""

    def __init__(self, decoder, val: Pairs) -> None:
        self.decoder, self.val = decoder, val
        self.picks = spread(len(val.sources), 8).tolist()

    def __call__(self, bridge: PointBridge, path: Path) -> None:
        pictures = []
        device = next(bridge.parameters()).device
        for pick in self.picks:
            generator = torch.Generator().manual_seed(0)
            point = bridge(bridge.frontend.windows(self.val.sources.get(pick))[None].to(device))[0]
            conditioning = bridge.sample(point, generator)[None].cpu()
            pictures += self.decoder.decode(conditioning, generators=[generator])
        grid(pictures, columns=4).save(path)


def train_prior(task: BridgeTask, bridge: PointBridge, first: Run) -> None:
    """Give a bridge, whose encoder the run `first` has trained, its prior; none where time is up before the prior's
    first step."""
    recipe, pairs = task.recipe, task.pairs
    some = pairs.subset(spread(len(pairs.sources), POINTS)) if len(pairs.sources) > POINTS else pairs
    begin = partial(recipe.begin, kind=type(bridge), part="prior.")
    prior = PriorTask(some, bridge, task.label_texts, seed=recipe.seed, preview=task.show, begin=begin)
    run = recipe.start(prior, SCHEDULE, "prior", after=[first])
    run.fit(quiet=recipe.quiet)
    if run.step:
        bridge.prior = run.averaged()
        return
    bridge.config = replace(bridge.config, prior=None)
    if recipe.team.leads:
        print(
            "--max-minutes: no time was left for the prior, so the bridge has none; the same command goes on",
            file=sys.stderr,
        )
