"""`mmx train-bridge SOURCE2speech`: any source into a speech decoder's units."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from mmx.bridges.base import BridgeConfig
from mmx.bridges.units import Trunk, UnitBridge
from mmx.data.features import Units
from mmx.data.manifest import Manifest
from mmx.decoders.base import Decoder
from mmx.errors import UsageError
from mmx.tasks import task as task_named
from mmx.training.bridges.any_source import source_of, standardised
from mmx.training.bridges.base import BridgeRecipe, Setting, Sides
from mmx.training.bridges.image import ImageBridgeTask


class AnyUnitsTask(ImageBridgeTask):
    """Next-unit prediction after any source, as after a photo."""

    bridge_kind = UnitBridge

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        if recipe.lora:
            raise UsageError("--lora: of bridges that write units it adapts nothing", hint="leave it out")
        frontend, about = source_of(recipe, manifest, task_named(recipe.task, having="trainer").origin)
        return Sides(frontend, Units(decoder), about)

    def __init__(self, setting: Setting) -> None:
        sides = setting.sides
        frontend = standardised(sides.frontend, setting.loaded.train.sources)
        about = sides.about | ({"array": frontend.kind.as_dict()} if "array" in sides.about else {})
        super().__init__(replace(setting, sides=replace(sides, frontend=frontend, about=about)))

    @torch.no_grad()
    def looked(self, about: dict[str, Any]) -> tuple[int, int]:
        trunk = Trunk(BridgeConfig(task=self.recipe.task, spec=self.decoder.spec.as_dict(), **about))
        first = self.frontend.finish(self.frontend.crop(self.pairs.sources, 0, 0.0).float()[None])
        return tuple(trunk(first).shape[1:])
