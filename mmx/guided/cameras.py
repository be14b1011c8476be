"""Cameras that look at the origin, and where they see points of the world."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DISTANCE = 2.8  # from the origin; a mesh lies within 1 of it
FIELD = math.radians(45)  # of view, from edge to edge


@dataclass(frozen=True)
class Cameras:
    """V cameras on a sphere around the origin. y is up, the first looks from +z.

    azimuth, elevation (V,): radians, from +z toward +x, and upward. distance: of all of them. field: of view, radians.
    """

    azimuth: Tensor
    elevation: Tensor
    distance: float = DISTANCE
    field: float = FIELD

    def __len__(self) -> int:
        return len(self.azimuth)

    @property
    def places(self) -> Tensor:
        """(V, 3): where they are."""
        across = self.elevation.cos()
        towards = torch.stack((self.azimuth.sin() * across, self.elevation.sin(), self.azimuth.cos() * across), -1)
        return towards * self.distance

    @property
    def axes(self) -> Tensor:
        """(V, 3, 3): the rows are what is to the right, up, and toward the viewer, in the world."""
        back = self.places / self.distance
        none = torch.zeros_like(self.azimuth)
        right = torch.stack((self.azimuth.cos(), none, -self.azimuth.sin()), -1)
        return torch.stack((right, torch.linalg.cross(back, right), back), 1)

    def project(self, points: Tensor, size: int) -> Tensor:
        """Points (N, 3), or (V, N, 3) of each camera its own → (V, N, 3): column and row in pixels of a picture of
        `size` a side, whose pixel (i, j) has its centre at (i + 0.5, j + 0.5), and depth: how far ahead."""
        own = points if points.dim() == 3 else points[None]
        seen = own @ self.axes.mT.to(points)
        depth = self.distance - seen[..., 2]
        scale = size / 2 / math.tan(self.field / 2) / depth
        return torch.stack((size / 2 + seen[..., 0] * scale, size / 2 - seen[..., 1] * scale, depth), -1)

    def to(self, like: Tensor) -> Cameras:
        """Where and in what another tensor is."""
        return Cameras(self.azimuth.to(like), self.elevation.to(like), self.distance, self.field)


def ring(count: int, elevation: float = 0.0, front: float = 0.0) -> Cameras:
    """`count` cameras around the world at one elevation, the first at the azimuth `front` (radians)."""
    azimuth = front + torch.arange(count) * (2 * math.pi / count)
    return Cameras(azimuth, torch.full((count,), elevation))
