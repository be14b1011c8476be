"""A field over a surface: what colour it has at a point, and how far it is moved out there (Text2Mesh, Michel et al.
2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Field:
    """Points → random Fourier features (Tancik et al. 2020) → perceptrons → colours and offsets.

    frequencies (3, K), coarse (3, C): of colours and of offsets, fixed. Offsets have lower ones: a shape that changes
    from point to point is spikes, or is held back whole by the Laplacian. width, depth: of the perceptron of colours;
    slim, of that of offsets, which has half as many layers. Their weights are the residual that is optimised. reach: by
    which points are moved at most, along their normals.
    """

    frequencies: Tensor
    coarse: Tensor
    width: int = 256
    slim: int = 64
    depth: int = 4
    reach: float = 0.1

    @classmethod
    def draw(
        cls, generator: torch.Generator, *, sigma: float, coarse: float, count: int = 128, reach: float = 0.1
    ) -> Field:
        """With frequencies of its own, of standard deviations sigma and coarse."""
        fine = torch.randn(3, count, generator=generator) * sigma
        return cls(fine, torch.randn(3, count // 4, generator=generator) * coarse, reach=reach)

    @property
    def sizes(self) -> tuple[list[int], list[int]]:
        """Of the layers of both perceptrons."""
        colours = [2 * self.frequencies.shape[1], *[self.width] * self.depth, 3]
        return colours, [2 * self.coarse.shape[1], *[self.slim] * (self.depth // 2), 1]

    def start(self, generator: torch.Generator) -> list[Tensor]:
        """Weights and biases, layer by layer (He et al. 2015), first those of colours; the last of each are zero:
        everything is grey and in place."""
        found = []
        for sizes in self.sizes:
            for inputs, outputs in pairwise(sizes[:-1]):
                drawn = torch.randn(inputs, outputs, generator=generator) * math.sqrt(2 / inputs)
                found += [drawn, torch.zeros(outputs)]
            found += [torch.zeros(*sizes[-2:]), torch.zeros(sizes[-1])]
        return found

    def __call__(self, weights: Sequence[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """All points of a surface (N, 3) → colours (N, 3) in [0, 1], and offsets (N,) within `reach` of each other's
        mean, which is 0: it takes shape, but does not just grow."""
        cut = 2 * (len(self.sizes[0]) - 1)
        colours = _perceptron(weights[:cut], _features(points, self.frequencies))
        moves = _perceptron(weights[cut:], _features(points, self.coarse))[:, 0].tanh()
        return 0.5 + colours.tanh() / 2, self.reach * (moves - moves.mean())


def _features(points: Tensor, frequencies: Tensor) -> Tensor:
    """Points (N, 3) → (N, 2 K)."""
    phase = 2 * math.pi * (points @ frequencies.to(points))
    return torch.cat((phase.cos(), phase.sin()), -1)


def _perceptron(weights: Sequence[Tensor], hidden: Tensor) -> Tensor:
    for matrix, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        hidden = torch.relu(hidden @ matrix + bias)
    return hidden @ weights[-2] + weights[-1]
