"""A differentiable rasteriser in plain torch: a hard z-buffer, differentiable barycentrics, analytic edges.

Which triangle a pixel shows is found without gradients, in pieces of bounded size. Where in it, is computed with them
(perspective-correct barycentrics); and where one surface ends before another, neighbouring pixels are blended by where
the edge runs between them, which is what tells a vertex at an outline where to move (nvdiffrast, Laine et al. 2020,
sections 3.2 and 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PIECE = 1 << 20  # pairs of a triangle and a pixel that are looked at together
NEAR = 1e-2  # depth up to which triangles are left out
SLACK = 1e-6  # of barycentrics: a pixel on an edge belongs to both sides, and to the nearer one
FLAT = 1e-9  # pixels; a triangle of a smaller area is seen from its side


@dataclass(frozen=True)
class Topology:
    """faces (F, 3): rows of vertices. across (F, 3): the vertex that lies opposite each face's edges (1, 2), (2, 0),
    (0, 1) in the one other face at that edge; -1 where there is none, or several."""

    faces: Tensor
    across: Tensor

    @classmethod
    def of(cls, faces: Tensor) -> Topology:
        """From the faces alone."""
        ends = torch.cat([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]])
        own = faces.T.reshape(-1)  # what lies opposite, in the same order
        _, edge, uses = ends.sort(1).values.unique(dim=0, return_inverse=True, return_counts=True)
        total = torch.zeros_like(uses).index_add(0, edge, own)  # of both ends' opposites
        other = torch.where(uses[edge] == 2, total[edge] - own, -1)
        return cls(faces, other.view(3, -1).T.contiguous())

    def to(self, device: torch.device | str) -> Topology:
        """On a device."""
        return Topology(self.faces.to(device), self.across.to(device))


@dataclass(frozen=True)
class Seen:
    """What V views of S x S pixels show of a mesh.

    screen (V, N, 3): the vertices in pixels, and their depth. faces (V, S, S): which triangle, -1 for none. at (P,):
    flat positions of the pixels that show one. view, face (P,): of these. weights (P, 3): perspective-correct
    barycentrics of their centres; depth (P,): how far ahead. The last two have gradients.
    """

    screen: Tensor
    faces: Tensor
    at: Tensor
    view: Tensor
    face: Tensor
    weights: Tensor
    depth: Tensor

    def interpolate(self, surface: Topology, values: Tensor) -> Tensor:
        """Values of vertices (N, C), or (V, N, C) of each view → of the pixels that show something (P, C)."""
        corners = surface.faces[self.face]
        own = values[corners] if values.dim() == 2 else values[self.view[:, None], corners]
        return (own * self.weights[..., None]).sum(1)

    def spread(self, values: Tensor, empty: Tensor) -> Tensor:
        """Values of these pixels (P, C) in whole views (V, S, S, C). empty (V, C): what the others show."""
        views, size = self.faces.shape[:2]
        whole = empty[:, None, None].expand(views, size, size, empty.shape[-1]).reshape(-1, empty.shape[-1])
        return whole.index_copy(0, self.at, values).view(views, size, size, -1)


def rasterise(screen: Tensor, surface: Topology, size: int) -> Seen:
    """Vertices on the screen (V, N, 3), as `Cameras.project` gives them → what each pixel shows."""
    faces = _nearest(screen.detach(), surface.faces, size)
    at = (faces.view(-1) >= 0).nonzero()[:, 0]
    view, face = at // (size * size), faces.view(-1)[at]
    triangles = screen[view[:, None], surface.faces[face]]
    inner = at % (size * size)
    centres = torch.stack((inner % size, inner // size), -1).to(screen) + 0.5
    weights, depth = _perspective(_barycentrics(triangles, centres), triangles[..., 2])
    return Seen(screen, faces, at=at, view=view, face=face, weights=weights, depth=depth)


def _barycentrics(triangles: Tensor, points: Tensor) -> Tensor:
    """Triangles (..., 3, 2 or 3) and points (..., 2) of the screen → (..., 3); of flat triangles no numbers."""
    to = triangles[..., :2] - points[..., None, :]
    x, y = to[..., 0], to[..., 1]
    parts = torch.stack([x[..., k] * y[..., j] - x[..., j] * y[..., k] for k, j in ((1, 2), (2, 0), (0, 1))], -1)
    return parts / parts.sum(-1, keepdim=True)


def _perspective(flat: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Barycentrics on the screen (..., 3) and the corners' depth (..., 3) → those on the surface, and its depth."""
    parts = flat / depth
    ahead = 1 / parts.sum(-1)
    return parts * ahead[..., None], ahead


@torch.no_grad()
def _nearest(screen: Tensor, faces: Tensor, size: int) -> Tensor:
    """Which triangle is nearest at each pixel's centre: (V, S, S), -1 where none is."""
    views, count = len(screen), len(faces)
    triangles = screen[:, faces].flatten(0, 1)  # (V * F, 3, 3)
    (first, last), usable = _boxes(triangles, size)
    spans = (last - first + 1).clamp(min=0) * usable[:, None]
    pixels = spans.prod(-1)
    ends, empty = pixels.cumsum(0), torch.iinfo(torch.int64).max
    nearest = torch.full((views * size * size,), empty, device=screen.device)
    for start, stop in _pieces(ends):
        own = torch.repeat_interleave(torch.arange(start, stop, device=screen.device), pixels[start:stop])
        place = torch.arange(len(own), device=screen.device) - (ends - pixels)[own] + (ends[start] - pixels[start])
        column, row = first[own, 0] + place % spans[own, 0], first[own, 1] + place // spans[own, 0]
        flat = _barycentrics(triangles[own], torch.stack((column, row), -1).to(screen) + 0.5)
        _, depth = _perspective(flat, triangles[own][..., 2])
        inside = (flat >= -SLACK).all(-1)
        # depths are above 0, where the bits of floats are in the order of their values
        order = depth[inside].float().view(torch.int32).long() << 32 | own[inside] % count
        at = (own[inside] // count) * size * size + row[inside] * size + column[inside]
        nearest.scatter_reduce_(0, at, order, "amin")
    return torch.where(nearest == empty, -1, nearest & 0xFFFF_FFFF).view(views, size, size)


def _boxes(triangles: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Triangles (T, 3, 3) → the first and the last column and row (T, 2) of the pixels whose centres they may hold, and
    which of them have an area and lie ahead."""
    low, high = triangles[..., :2].amin(1), triangles[..., :2].amax(1)
    first = (low - 0.5 - 1e-4).ceil().clamp(0, size).long()
    last = (high - 0.5 + 1e-4).floor().clamp(-1, size - 1).long()
    (ax, ay), (bx, by) = ((triangles[:, k, :2] - triangles[:, 0, :2]).unbind(-1) for k in (1, 2))
    return (first, last), ((ax * by - ay * bx).abs() > FLAT) & (triangles[..., 2].amin(1) > NEAR)


def _pieces(ends: Tensor) -> list[tuple[int, int]]:
    """Sums of pixels up to each triangle (T,) → ranges of triangles with about PIECE pixels each, or one triangle."""
    total = int(ends[-1]) if len(ends) else 0
    marks = torch.arange(PIECE, total + PIECE, PIECE, device=ends.device)
    stops = (torch.searchsorted(ends, marks, right=True)).clamp(min=1, max=len(ends)).unique().tolist()
    return [(a, b) for a, b in zip([0, *stops], [*stops, len(ends)], strict=True) if b > a]


def blend_edges(pixels: Tensor, seen: Seen, surface: Topology) -> Tensor:
    """Views (V, S, S, C) → the same with soft outlines: what shows two surfaces is their mean by area.

    Of two neighbouring pixels with different triangles, the nearer triangle's outline between their centres says how
    far its surface reaches; the one that it reaches into, or that it does not fill, takes up the other's values. Only
    that triangle's own edges are looked at: where the outline is that of one between them, too small to hold a pixel's
    centre, the step stays hard, and tells nobody where to move.
    """
    flat = pixels.flatten(0, 2)
    changes = [_crossings(seen, surface, axis) for axis in (0, 1)]
    targets, sources, shares = (torch.cat(parts) for parts in zip(*changes, strict=True))
    return flat.index_add(0, targets, shares[:, None] * (flat[sources] - flat[targets])).view_as(pixels)


def _crossings(seen: Seen, surface: Topology, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Outlines between pixels that are neighbours along an axis (0: in a row): the pixel that changes, the one whose
    values it takes up, as flat positions (Q,), and the share of them (Q,), with gradients."""
    size = seen.faces.shape[-1]
    step = 1 if axis == 0 else size
    near, far = _neighbours(seen, axis, step)
    face, view = seen.faces.view(-1)[near], near // (size * size)
    corners = surface.faces[face]
    triangle = seen.screen[view[:, None], corners][..., :2]
    opposite = seen.screen[view[:, None], surface.across[face].clamp(min=0)][..., :2]
    ends = triangle[:, [[1, 2], [2, 0], [0, 1]]]  # (Q, 3 edges, 2 ends, 2)
    along = ends[..., axis], ends[..., 1 - axis]
    inner = near % (size * size)
    centre = torch.stack((inner % size, inner // size), -1).to(triangle) + 0.5
    level = centre[:, 1 - axis, None] - along[1][..., 0]
    rise = along[1][..., 1] - along[1][..., 0]
    part = level / torch.where(rise == 0, 1.0, rise)
    run = along[0][..., 1] - along[0][..., 0]
    reach = (along[0][..., 0] + part * run - centre[:, axis, None]) * (far - near).sign()[:, None]
    steep = (rise.abs() > run.abs()) | ((rise.abs() == run.abs()) & (axis == 0) & (rise != 0))
    crossed = steep & (part >= 0) & (part <= 1) & (reach >= 0) & (reach <= 1)
    crossed &= _outline(triangle, opposite, ends) | (surface.across[face] < 0)
    found, which = crossed.max(1)
    near, far, reach = near[found], far[found], reach[found, which[found]]
    beyond = reach > 0.5
    return torch.where(beyond, far, near), torch.where(beyond, near, far), (reach - 0.5).abs()


def _neighbours(seen: Seen, axis: int, step: int) -> tuple[Tensor, Tensor]:
    """Flat positions (Q,) of neighbouring pixels that show different triangles, the nearer one's first."""
    size = seen.faces.shape[-1]
    ahead = torch.full((seen.faces.numel(),), torch.inf, dtype=seen.depth.dtype, device=seen.depth.device)
    ahead[seen.at] = seen.depth.detach()
    left, right = (seen.faces.narrow(2 - axis, start, size - 1) for start in (0, 1))
    flat = torch.arange(seen.faces.numel(), device=ahead.device).view_as(seen.faces).narrow(2 - axis, 0, size - 1)
    first = flat[left != right]
    second = first + step
    nearer = ahead[first] <= ahead[second]
    return torch.where(nearer, first, second), torch.where(nearer, second, first)


def _outline(triangle: Tensor, opposite: Tensor, ends: Tensor) -> Tensor:
    """Which edges (Q, 3) the surface turns back at: both triangles at such an edge lie on one side of it."""
    start, way = ends[..., 0, :], ends[..., 1, :] - ends[..., 0, :]

    def side(points: Tensor) -> Tensor:
        to = points - start
        return way[..., 0] * to[..., 1] - way[..., 1] * to[..., 0]

    return (side(triangle) * side(opposite) > 0).detach()
