"""`mmx train-bridge SOURCE2img | SOURCE2face`: any source into any decoder's space of points."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mmx.bridges.base import Bridge
from mmx.bridges.points import PointBridge
from mmx.data.features import Embeddings
from mmx.data.manifest import Manifest
from mmx.decoders.base import Decoder
from mmx.tasks import task as task_named
from mmx.training.bridges.any_source import source_of, standardised
from mmx.training.bridges.base import BridgeRecipe, Setting, Sides
from mmx.training.bridges.measures import points_of, spread
from mmx.training.bridges.sound import SoundBridgeTask

SAMPLE = 1024  # training sources, by which the mean of all points is known


class AnyPointTask(SoundBridgeTask):
    """Sources land where their targets are, by the contrast that sounds are trained by."""

    bridge_kind = PointBridge

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        origin = task_named(recipe.task, having="trainer").origin
        frontend, about = source_of(recipe, manifest, origin)
        return Sides(frontend, Embeddings(decoder), about)

    def __init__(self, setting: Setting) -> None:
        sides = setting.sides
        frontend = standardised(sides.frontend, setting.loaded.train.sources)
        about = sides.about | ({"array": frontend.kind.as_dict()} if "array" in sides.about else {})
        super().__init__(replace(setting, sides=replace(sides, frontend=frontend, about=about)))

    def finished(self, module: nn.Module) -> Bridge:
        sources = self.pairs.sources
        mean = points_of(module.bridge, sources, spread(len(sources), SAMPLE)).mean(0)
        self.config = replace(self.config, mean=tuple(round(value, 6) for value in mean.tolist()))
        return super().finished(module)
