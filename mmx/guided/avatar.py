"""A mesh that is coloured and moved until its views mean something (Text2Mesh, Michel et al. 2022; CLIP-Actor, Youwang
et al. 2022): the residual is the weights of a field over its surface, what sees is a space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.guided.cameras import Cameras, ring
from mmx.guided.field import Field
from mmx.guided.raster import Topology
from mmx.guided.residual import Term
from mmx.guided.shading import Views, render, vertex_normals
from mmx.spaces.base import Space

GREY = 0.7  # of views that show nothing but the shape
LEAST = 0.05  # share of a crop that shows the mesh, from which it counts
FRONTS = 8
STEEPEST = 1.2  # radians, that a camera looks down or up at most


@dataclass(frozen=True)
class Looking:
    """How a mesh is looked at in each step.

    views: cameras. size: pixels a side of a view; cropped: of what the space is shown of it. local: small crops of each
    view, of a side between `closest` and `widest` of it. spread, tilt: standard deviation of the cameras' azimuth and
    elevation, radians; above: their mean elevation. ground, varied: the
    mean colour behind the mesh, and from which range around it each view's is drawn.
    """

    views: int = 4
    size: int = 128
    cropped: int = 96
    local: int = 2
    closest: float = 0.3
    widest: float = 0.7
    spread: float = 1.0
    tilt: float = 0.25
    above: float = 0.2
    ground: float = 0.5
    varied: float = 1.0


@dataclass(frozen=True)
class Body:
    """frames (T, N, 3): where the vertices are; those of the first are what the field is asked at. surface: their
    triangles. normals (T, N, 3)."""

    frames: Tensor
    normals: Tensor
    surface: Topology

    @classmethod
    def of(cls, frames: Tensor, faces: Tensor) -> Body:
        """From points within 1 of the origin."""
        return cls(frames, torch.stack([vertex_normals(f, faces) for f in frames]), Topology.of(faces))

    def moved(self, offsets: Tensor, frame: int) -> Tensor:
        """A frame's points, moved along their normals by (N,)."""
        return self.frames[frame] + offsets[:, None] * self.normals[frame]


@dataclass(frozen=True)
class Seen:
    """What the losses look at. whole, shape, parts (D,): what views, views without colour, and small crops mean
    together, as unit vectors. offsets (N,): of the vertices."""

    whole: Tensor
    shape: Tensor
    parts: Tensor | None
    offsets: Tensor


@dataclass(frozen=True)
class Sight:
    """Eyes on a body: the frozen half of the loop. mean (D,): of the space's pictures, taken off what is seen. front:
    the azimuth around which it looks."""

    space: Space
    mean: Tensor
    body: Body
    field: Field
    looking: Looking
    seed: int = 0
    front: float = 0.0
    dtype: torch.dtype | None = None

    def __call__(self, weights: Sequence[Tensor], step: int) -> Seen:
        """The body as a few cameras see it, and what the space says of that."""
        look, draw = self.looking, torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        colours, offsets = self.field(weights, self.body.frames[0])
        frame = int(torch.randint(len(self.body.frames), (1,), generator=draw))
        cameras = self.cameras(draw)
        ground = look.ground + look.varied * (torch.rand(len(cameras), 3, generator=draw) - 0.5)
        paints = [colours, torch.full_like(colours, GREY)]
        points = self.body.moved(offsets, frame)
        painted, plain = render(points, self.body.surface, paints, cameras, size=look.size, ground=ground.to(colours))
        whole = boxes_of(look, len(cameras), 1, draw)
        crops = [cropped(painted, whole, look.cropped), cropped(plain, whole, look.cropped)]
        if look.local:
            crops.append(cropped(painted, boxes_of(look, len(cameras), 0, draw), look.cropped))
        sizes = [len(crop.pixels) for crop in crops]
        vectors = self.directions(torch.cat([crop.pixels for crop in crops])).split(sizes)
        means = [weighted(own, crop.cover) for own, crop in zip(vectors, crops, strict=True)]
        return Seen(means[0], means[1], means[2] if look.local else None, offsets)

    def cameras(self, draw: torch.Generator) -> Cameras:
        """The first near the front, the others around it."""
        look = self.looking
        spread = torch.full((look.views,), look.spread)
        spread[0] = look.spread / 4
        azimuth = self.front + spread * torch.randn(look.views, generator=draw)
        elevation = look.above + look.tilt * torch.randn(look.views, generator=draw)
        return Cameras(azimuth, elevation.clamp(-STEEPEST, STEEPEST))

    @torch.no_grad()
    def best_front(self, target: Tensor) -> float:
        """Of FRONTS azimuths the one from where the shape alone already looks most like the target (D,)."""
        body, cameras = self.body, ring(FRONTS, self.looking.above)
        grey = torch.full_like(body.frames[0], GREY)
        seen = paint(body, grey, torch.zeros_like(grey[:, 0]), cameras, size=self.looking.size)
        return float(cameras.azimuth[(self.directions(seen.pixels) @ target).argmax()])

    def directions(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) → unit vectors (B, D) without what pictures have in common."""
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype not in (None, torch.float32)):
            vectors = self.space.see(pixels)
        return F.normalize(vectors - self.mean.to(vectors), dim=-1)


def boxes_of(look: Looking, views: int, whole: int, draw: torch.Generator) -> Tensor:
    """Squares of views as (V, K, 3): half their side and their middle, in [-1, 1]. whole: one of nearly all of each
    view, or else `local` small ones."""
    count = 1 if whole else look.local
    low, high = (0.85, 1.0) if whole else (look.closest, look.widest)
    half = low + (high - low) * torch.rand(views, count, generator=draw)
    middle = (2 * torch.rand(views, count, 2, generator=draw) - 1) * (1 - half)[..., None]
    return torch.cat((half[..., None], middle), -1)


def cropped(views: Views, boxes: Tensor, side: int) -> Views:
    """Squares (V, K, 3) of views → (V * K, ..., side, side)."""
    count = boxes.shape[1]
    flat = boxes.flatten(0, 1).to(views.pixels)
    theta = torch.zeros(len(flat), 2, 3).to(flat)
    theta[:, 0, 0] = theta[:, 1, 1] = flat[:, 0]
    theta[:, :, 2] = flat[:, 1:]
    whole = torch.cat((views.pixels, views.cover), 1).repeat_interleave(count, 0)
    grid = F.affine_grid(theta, [len(flat), 4, side, side], align_corners=False)
    found = F.grid_sample(whole, grid, align_corners=False, padding_mode="border")
    return Views(found[:, :3], found[:, 3:])


def weighted(vectors: Tensor, cover: Tensor) -> Tensor:
    """Unit vectors (B, D) of crops that show the mesh in (B, 1, S, S) → their mean (D,) by how much of it they show;
    those that show less than LEAST have no part in it."""
    share = cover.detach().mean((1, 2, 3))
    share = share * (share >= LEAST)
    return F.normalize((vectors * share[:, None]).sum(0), dim=-1)


def roughness(offsets: Tensor, surface: Topology) -> Tensor:
    """How far offsets (N,) are from the mean of their neighbours' (the uniform Laplacian), squared, mean, in units of
    a hundredth."""
    ends = torch.cat([surface.faces[:, [0, 1]], surface.faces[:, [1, 2]], surface.faces[:, [2, 0]]])
    first, second = torch.cat((ends, ends.flip(1))).T
    around = torch.zeros_like(offsets).index_add(0, first, offsets[second])
    count = torch.zeros_like(offsets).index_add(0, first, torch.ones_like(offsets[second]))
    return (100 * (offsets - around / count.clamp(min=1))).square().mean()


def paint(
    body: Body, colours: Tensor, offsets: Tensor, cameras: Cameras, *, size: int, frame: int = 0, ground: float = 1.0
) -> Views:
    """A frame in colours (N, 3), moved by offsets (N,), before a grey ground."""
    behind = torch.full((len(cameras), 3), ground).to(colours)
    return render(body.moved(offsets, frame), body.surface, [colours], cameras, size=size, ground=behind)[0]


def terms(target: Tensor, surface: Topology, *, smooth: float = 1.0, local: bool = True) -> list[Term[Seen]]:
    """The losses toward a direction (D,) of the space."""
    found: list[Term[Seen]] = [
        Term("views", 1.0, lambda seen: 1 - seen.whole @ target),
        Term("shape", 0.5, lambda seen: 1 - seen.shape @ target),
        Term("rough", smooth, lambda seen: roughness(seen.offsets, surface)),
    ]
    if local:
        found.append(Term("crops", 0.5, lambda seen: 1 - seen.parts @ target))
    return found


def held_out(front: float) -> Cameras:
    """24 cameras that no step used: 8 around, at three elevations."""
    around = front + (torch.arange(24) % 8 + 0.5) * (math.pi / 4)
    return Cameras(around, torch.tensor([-0.1, 0.3, 0.7]).repeat_interleave(8))
