"""Views of a coloured mesh as pixels, with gradients to its vertices and colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.guided.cameras import Cameras
from mmx.guided.raster import Seen, Topology, blend_edges, rasterise

AMBIENT = 0.55  # of the light comes from everywhere, the rest from above the viewer's left shoulder
LAMP = (-0.35, 0.6, 0.72)  # to the right, up, toward the viewer


@dataclass(frozen=True)
class Views:
    """pixels (V, 3, S, S) in [0, 1]; cover (V, 1, S, S): how much of each pixel the mesh covers."""

    pixels: Tensor
    cover: Tensor


def face_normals(points: Tensor, faces: Tensor) -> Tensor:
    """Points (N, 3) → (F, 3), as long as twice the face's area."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(points: Tensor, faces: Tensor) -> Tensor:
    """Points (N, 3) → unit normals (N, 3): the mean over the faces around, by area."""
    each = face_normals(points, faces)
    total = torch.zeros_like(points)
    for corner in range(3):
        total = total.index_add(0, faces[:, corner], each)
    return F.normalize(total, dim=-1)


def shade(seen: Seen, surface: Topology, normals: Tensor, cameras: Cameras) -> Tensor:
    """How light the pixels are that show something (P, 1), in [AMBIENT, 1]: diffuse, and the same from both sides."""
    axes = cameras.axes[seen.view]
    facing = F.normalize(seen.interpolate(surface, normals), dim=-1)
    own = (axes @ facing[..., None])[..., 0]
    lamp = F.normalize(torch.tensor(LAMP).to(own), dim=-1)
    own = own * torch.where(own[:, 2:] < 0, -1.0, 1.0)
    return AMBIENT + (1 - AMBIENT) * (own @ lamp).clamp(min=0)[:, None]


def render(
    points: Tensor, surface: Topology, colours: list[Tensor], cameras: Cameras, *, size: int, ground: Tensor
) -> list[Views]:
    """What cameras see of a mesh in each of several paints.

    points (N, 3); colours: each (N, 3) in [0, 1]. size: pixels a side. ground (V, 3): the colour behind.
    """
    cameras = cameras.to(points)
    seen = rasterise(cameras.project(points, size), surface, size)
    light = shade(seen, surface, vertex_normals(points, surface.faces), cameras)
    painted = [seen.interpolate(surface, paint) * light for paint in colours]
    covered = torch.ones_like(light)
    whole = seen.spread(
        torch.cat([*painted, covered], -1), torch.cat([ground] * len(colours) + [torch.zeros_like(ground[:, :1])], -1)
    )
    soft = blend_edges(whole, seen, surface).permute(0, 3, 1, 2)
    cover = soft[:, -1:]
    return [Views(soft[:, 3 * k : 3 * k + 3], cover) for k in range(len(colours))]


@torch.no_grad()
def images(pixels: Tensor) -> list[Image.Image]:
    """Views (V, 3, 2 S, 2 S) in [0, 1] → pictures of half the size, with smooth edges."""
    half = F.avg_pool2d(pixels, 2).clamp(0, 1)
    return [Image.fromarray(p) for p in (half * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()]
