"""The rasteriser: what is hit and where, against rays cast one by one; gradients, against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from mmx.guided import raster
from mmx.guided.cameras import Cameras, ring
from mmx.guided.raster import Topology, blend_edges, rasterise
from mmx.guided.shading import render, vertex_normals

SIZE = 40


def lumpy() -> tuple[Tensor, Topology]:
    """A closed surface that hides parts of itself, beside a box."""
    ball, box = trimesh.creation.icosphere(2, 0.55), trimesh.creation.box((0.5, 0.3, 0.4))
    x, y, z = ball.vertices.T
    ball.vertices *= (1 + 0.35 * np.sin(5 * x) * np.cos(4 * y + z))[:, None]
    box.apply_translation((0.35, 0.2, 0.5))
    both = trimesh.util.concatenate([ball, box])
    return torch.tensor(both.vertices), Topology.of(torch.tensor(both.faces))


CAMERAS = Cameras(torch.tensor([0.2, 2.0, -1.3]).double(), torch.tensor([0.1, -0.6, 0.8]).double())


def cast(points: np.ndarray, faces: np.ndarray, camera: int) -> tuple[np.ndarray, np.ndarray]:
    """Rays through the pixels' centres, by Moeller and Trumbore (1997) → nearest face or -1, and its depth."""
    place, axes = CAMERAS.places[camera].numpy(), CAMERAS.axes[camera].numpy()
    at = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    across, down = np.meshgrid(at, at)
    spread = math.tan(CAMERAS.field / 2)
    ways = np.stack((across * spread, -down * spread, -np.ones_like(across)), -1).reshape(-1, 3) @ axes
    a, b, c = (points[faces[:, k]] for k in range(3))
    e, f = b - a, c - a
    h = np.cross(ways[:, None], f)
    scale = 1 / (e * h).sum(-1)
    to = place - a
    u = scale * (to * h).sum(-1)
    q = np.cross(to, e)
    v = scale * (ways[:, None] * q).sum(-1)
    depth = scale * (f * q).sum(-1)
    depth[(u < 0) | (v < 0) | (u + v > 1) | (depth <= 0)] = np.inf
    nearest = depth.argmin(1)
    found = depth.min(1)
    return np.where(np.isfinite(found), nearest, -1).reshape(SIZE, SIZE), found.reshape(SIZE, SIZE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_show_what_rays_hit(dtype: torch.dtype, monkeypatch) -> None:
    points, surface = lumpy()
    screen = CAMERAS.project(points, SIZE).to(dtype)
    seen = rasterise(screen, surface, SIZE)
    depth = torch.full(seen.faces.shape, math.inf, dtype=dtype).view(-1)
    depth[seen.at] = seen.depth
    for camera in range(3):
        faces, far = cast(points.numpy(), surface.faces.numpy(), camera)
        assert (seen.faces[camera].numpy() == faces).mean() > 0.998  # a centre may lie on an edge
        same = (seen.faces[camera].numpy() == faces) & (faces >= 0)
        assert same.sum() > 200
        assert np.allclose(depth.view(3, SIZE, SIZE)[camera].numpy()[same], far[same], atol=1e-4)
    monkeypatch.setattr(raster, "PIECE", 97)
    assert torch.equal(rasterise(screen, surface, SIZE).faces, seen.faces)


def test_barycentrics_are_of_the_surface_and_not_of_the_screen() -> None:
    points, surface = lumpy()
    seen = rasterise(CAMERAS.project(points, SIZE), surface, SIZE)
    there = seen.interpolate(surface, points)
    back = torch.stack([CAMERAS.project(there, SIZE)[view, row] for row, view in enumerate(seen.view.tolist())])
    inner = seen.at % SIZE**2
    centres = torch.stack((inner % SIZE, inner // SIZE), -1) + 0.5
    assert torch.allclose(back[:, :2], centres.double(), atol=1e-6) and torch.allclose(back[:, 2], seen.depth)


def scene(points: Tensor, surface: Topology, colours: Tensor) -> Tensor:
    """All that a picture holds, as (V, 4, S, S)."""
    views = render(points, surface, [colours], CAMERAS, size=SIZE, ground=torch.full((3, 3), 0.9).double())[0]
    return torch.cat((views.pixels, views.cover), 1)


def smooth_weights() -> Tensor:
    at = torch.linspace(0, 3, SIZE).double()
    wave = torch.sin(at[:, None] * 1.3 + at) + torch.cos(at[:, None] - 2 * at)
    return torch.stack([wave, wave.T, wave.flip(0), 2 * wave])


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_differences(seed: int) -> None:
    """Of points, colours and outlines at once: a picture as a whole changes as its gradient says."""
    points, surface = lumpy()
    draw = torch.Generator().manual_seed(seed)
    colours = torch.rand(points.shape, generator=draw).double()
    ways = [torch.randn(3, generator=draw).double().expand_as(points) * 0.3 + 0.1 * points, colours * 0]
    ways[1] = torch.randn(points.shape, generator=draw).double()
    for which, share in ((0, 1e-3), (1, 1e-6)):
        values = [points.clone().requires_grad_(which == 0), colours.clone().requires_grad_(which == 1)]
        loss = (scene(values[0], surface, values[1]) * smooth_weights()).sum()
        (slope,) = torch.autograd.grad(loss, values[which])
        said = float((slope * ways[which]).sum())
        step = 1e-6  # no pixel's centre passes from one triangle to another on the way
        ends = []
        for by in (step, -step):
            moved = [points, colours]
            moved[which] = moved[which] + by * ways[which]
            ends.append(float((scene(moved[0], surface, moved[1]) * smooth_weights()).sum()))
        found = (ends[0] - ends[1]) / 2 / step
        assert said == pytest.approx(found, rel=share)


def test_outlines_cover_pixels_by_area_and_tell_points_where_to_move() -> None:
    """A rectangle on the screen, whose edges lie between pixels' centres."""
    corners = torch.tensor([[5.3, 6.8], [20.6, 6.8], [20.6, 17.45], [5.3, 17.45]]).double()
    corners.requires_grad_()
    screen = torch.cat((corners, torch.full((4, 1), 2.0).double()), 1)[None]
    surface = Topology.of(torch.tensor([[0, 1, 2], [0, 2, 3]]))
    seen = rasterise(screen, surface, SIZE)
    whole = seen.spread(torch.ones(len(seen.at), 1).double(), torch.zeros(1, 1).double())
    soft = blend_edges(whole, seen, surface)[0, ..., 0]
    cover = soft.detach()
    area = (20.6 - 5.3) * (17.45 - 6.8)
    assert float(cover.sum()) == pytest.approx(area, rel=0.01) and float(whole.sum()) != pytest.approx(area, rel=0.01)
    assert float(cover[10, 20]) == pytest.approx(0.6, abs=1e-5) and float(cover[10, 5]) == pytest.approx(0.7, abs=1e-5)
    assert float(cover[17, 12]) == pytest.approx(0.45, abs=1e-5)
    assert (cover[8:16, 7:19] == 1).all()  # nothing at the inner edge
    (slope,) = torch.autograd.grad(soft.sum(), corners)
    assert slope[:, 0].tolist() == pytest.approx([-5, 5, 5, -5], abs=0.3)  # half of 10 rows each


def test_a_closed_surface_has_no_cracks() -> None:
    ball = trimesh.creation.icosphere(3, 0.9)
    points, surface = torch.tensor(ball.vertices).float(), Topology.of(torch.tensor(ball.faces))
    assert (surface.across >= 0).all()
    cover = render(points, surface, [torch.ones_like(points)], ring(4, 0.3), size=96, ground=torch.zeros(4, 3))[0].cover
    for view in cover[:, 0]:
        at = torch.arange(96) + 0.5 - 48
        radius = float(view.sum() / math.pi) ** 0.5
        inside = at.square()[:, None] + at.square() < (radius - 2) ** 2
        assert (view[inside] == 1).all()
        assert radius == pytest.approx(48 * math.tan(math.asin(0.9 / 2.8)) / math.tan(math.radians(22.5)), rel=0.01)


def test_topology_knows_the_other_side_of_each_edge() -> None:
    surface = Topology.of(torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6], [5, 4, 7], [4, 5, 8]]))
    assert surface.across.tolist()[:2] == [[3, -1, -1], [-1, -1, 0]]
    assert surface.across[2:].max() == -1  # three triangles at one edge have no other side


def test_normals_are_those_of_a_ball() -> None:
    ball = trimesh.creation.icosphere(3)
    points = torch.tensor(ball.vertices)
    assert torch.allclose(vertex_normals(points, torch.tensor(ball.faces)), points, atol=0.02)


def test_outlines_and_depth_are_mitsubas() -> None:
    mi = pytest.importorskip("mitsuba")
    mi.set_variant("scalar_rgb")
    points, surface = lumpy()
    mesh = mi.Mesh("lumpy", len(points), len(surface.faces))
    held = mi.traverse(mesh)
    held["vertex_positions"] = points.float().reshape(-1).tolist()
    held["faces"] = surface.faces.int().reshape(-1).tolist()
    held.update()
    place, axes = CAMERAS.places[0], CAMERAS.axes[0]
    aim = mi.ScalarTransform4f().look_at(origin=place.tolist(), target=[0, 0, 0], up=axes[1].tolist())
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "aov", "aovs": "d:depth"},
            "sensor": {
                "type": "perspective",
                "fov": math.degrees(CAMERAS.field),
                "to_world": aim,
                "film": {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}},
                "sampler": {"type": "independent", "sample_count": 256},
            },
            "mesh": mesh,
        }
    )
    cover = (np.array(mi.render(scene))[..., -1] > 0).mean()
    own = float(scene_cover(points, surface))
    assert own == pytest.approx(cover, rel=0.02)


def scene_cover(points: Tensor, surface: Topology) -> Tensor:
    return scene(points, surface, torch.ones_like(points))[0, 3].mean()
