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
    """Points → random Fourier features (Tancik et al. 2020) → a perceptron → colours and offsets.

    frequencies (3, K): of standard deviation sigma, fixed. width, depth: of the perceptron, whose weights are the
    residual that is optimised. reach: by which points are moved at most, along their normals.
    """

    frequencies: Tensor
    width: int = 256
    depth: int = 4
    reach: float = 0.1

    @classmethod
    def draw(cls, generator: torch.Generator, *, sigma: float, count: int = 128, reach: float = 0.1) -> Field:
        """With frequencies of its own."""
        return cls(torch.randn(3, count, generator=generator) * sigma, reach=reach)

    def start(self, generator: torch.Generator) -> list[Tensor]:
        """Weights and biases, layer by layer (He et al. 2015); the last are zero: everything is grey and in place."""
        sizes = [2 * self.frequencies.shape[1], *[self.width] * self.depth]
        found = []
        for inputs, outputs in pairwise(sizes):
            found += [torch.randn(inputs, outputs, generator=generator) * math.sqrt(2 / inputs), torch.zeros(outputs)]
        return [*found, torch.zeros(self.width, 4), torch.zeros(4)]

    def __call__(self, weights: Sequence[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """All points of a surface (N, 3) → colours (N, 3) in [0, 1], and offsets (N,) within `reach` of each other's
        mean, which is 0: it takes shape, but does not just grow."""
        phase = 2 * math.pi * (points @ self.frequencies.to(points))
        hidden = torch.cat((phase.cos(), phase.sin()), -1)
        for matrix, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            hidden = torch.relu(hidden @ matrix + bias)
        out = hidden @ weights[-2] + weights[-1]
        moves = out[:, 3].tanh()
        return 0.5 + out[:, :3].tanh() / 2, self.reach * (moves - moves.mean())
