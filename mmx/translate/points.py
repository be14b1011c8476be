"""Any source → pictures, by a bridge into the space of a decoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.base import likeliest
from mmx.bridges.points import PointBridge
from mmx.translate.any_source import READERS
from mmx.translate.base import Excerpt, Translation, Translator, generator_for


class PointTranslator(Translator):
    """Turns a source into pictures, whatever the bridge takes."""

    bridge_kind = PointBridge
    options = ("steps", "guidance", "size")

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Any:
        """What bridges from this source take. Raises InputError."""
        return READERS[self.bridge.config.sources[0]](source, name, excerpt)

    @torch.inference_mode()
    def point(self, medium: Any) -> Tensor:
        """A medium → its point (D,) of the decoder's space, unit norm."""
        return self.bridge.point(medium)

    def among_targets(self, point: Tensor, seed: int, index: int) -> Tensor:
        """A point (D,) as it can be compared with the decoder's targets."""
        return point

    @torch.inference_mode()
    def conditioning(self, point: Tensor, seed: int, index: int) -> tuple[Tensor, torch.Generator]:
        """The raw conditioning (D,) of the `index`-th result, and the generator that the decoder goes on with."""
        generator = generator_for(seed, index)
        return self.bridge.sample(point, generator), generator

    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """The bridge's labels nearest to a point, with probabilities; nothing without labels."""
        names, points = self.bridge.labelled(self.decoder)
        return [] if points is None else likeliest((points @ point * self.bridge.logit_scale).softmax(0), names, top)

    def translate(
        self,
        medium: Any,
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> Translation:
        """One medium, or a list of several that are averaged in the space → a picture for each of `indices`."""
        started = time.perf_counter()
        together = medium if isinstance(medium, list) else [medium]
        point = F.normalize(torch.stack([self.point(each) for each in together]).mean(0), dim=-1)
        drawn = [self.conditioning(point, seed, index) for index in indices]
        bridged = time.perf_counter()
        media = self.decoder.decode(
            torch.stack([conditioning for conditioning, _ in drawn]),
            generators=[generator for _, generator in drawn],
            steps=steps,
            guidance=guidance,
            size=size,
        )
        seconds = {"bridge": bridged - started, "decode": time.perf_counter() - bridged}
        return Translation(media, self.hear(point), seconds)
