"""The discriminator of a projected GAN (Sauer et al. 2021): small heads on a frozen network's feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2


@dataclass(frozen=True)
class CriticConfig:
    """Sizes. widths: channels that each scale is projected to, finest first; match: of the comparison with the
    conditioning.
    """

    dim: int = 96
    widths: tuple[int, ...] = (48, 64, 96, 128)
    match: int = 64


class Projection(nn.Module):
    """Fixed random 1x1 mixing across channels, and from coarse scales into fine ones (the paper's CCM and CSM)."""

    def __init__(self, deviations: Sequence[Tensor], widths: Sequence[int], seed: int = 0) -> None:
        """deviations: of each map's channels (C,), which are brought to one."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for k, (deviation, width) in enumerate(zip(deviations, widths, strict=True)):
            mix = torch.randn(width, len(deviation), 1, 1, generator=generator) / math.sqrt(len(deviation))
            self.register_buffer(f"channels{k}", mix / deviation[None, :, None, None])
        for k, (fine, coarse) in enumerate(pairwise(widths)):
            mix = torch.randn(fine, coarse, 1, 1, generator=generator) / math.sqrt(coarse)
            self.register_buffer(f"scales{k}", mix)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w), finest first → as many of (B, widths[k], h, w)."""
        found: list[Tensor] = []
        for k in reversed(range(len(maps))):
            x = F.conv2d(maps[k], self.get_buffer(f"channels{k}"))
            if found:
                above = F.conv2d(found[-1], self.get_buffer(f"scales{k}"))
                x = (x + F.interpolate(above, size=x.shape[2:], mode="bilinear")) * math.sqrt(0.5)
            found.append(x)
        return found[::-1]


class Head(nn.Module):
    """A score a place, by looks and by how well they match the conditioning (Miyato and Koyama 2018)."""

    def __init__(
        self, inputs: int, layers: Sequence[tuple[int, int, int]], config: CriticConfig, deviates: bool
    ) -> None:
        """layers: channels, kernel, stride. deviates: it also sees by how much the pictures of the batch differ."""
        super().__init__()
        self.deviates = deviates
        inputs += deviates
        body: list[nn.Module] = []
        for outputs, kernel, stride in layers:
            conv = spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False))
            body += [conv, nn.BatchNorm2d(outputs, track_running_stats=False), nn.LeakyReLU(SLOPE)]
            inputs = outputs
        self.body = nn.Sequential(*body)
        self.answer = spectral_norm(nn.Conv2d(inputs, 1 + config.match, 1))
        self.key = nn.Linear(config.dim, config.match)
        nn.init.normal_(self.key.weight, 0, 1 / math.sqrt(config.dim))
        self.scale = 4 / math.sqrt(config.match)

    def forward(self, x: Tensor, conditionings: Sequence[Tensor]) -> list[Tensor]:
        """A map (B, C, h, w) and conditionings (B, D) → scores (B, h', w'), for each of them."""
        if self.deviates:
            spread = x.std(0).mean().expand(len(x), 1, *x.shape[2:])
            x = torch.cat((x, spread), 1)
        answer = self.answer(self.body(x))
        looks, match = answer[:, 0], answer[:, 1:]
        return [looks + (match * self.key(c)[:, :, None, None]).sum(1) * self.scale for c in conditionings]


class Critic(nn.Module):
    """One head a scale; the coarsest sees the batch's spread (minibatch deviation, Karras et al. 2018)."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        layers = (((64, 4, 2), (64, 4, 2)), ((96, 4, 2),), ((128, 3, 1),), ((128, 3, 1),))
        last = len(layers) - 1
        self.heads = nn.ModuleList(
            Head(width, spec, config, k == last)
            for k, (width, spec) in enumerate(zip(config.widths, layers, strict=True))
        )

    def forward(self, maps: Sequence[Tensor], *conditionings: Tensor) -> list[list[Tensor]]:
        """Projected maps and conditionings (B, D) → for each conditioning every head's scores (B, h, w)."""
        by_head = [head(x, conditionings) for head, x in zip(self.heads, maps, strict=True)]
        return [list(scores) for scores in zip(*by_head, strict=True)]
