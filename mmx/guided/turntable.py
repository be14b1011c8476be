"""A mesh as it looks from all around."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmx.device import threads
from mmx.guided.cameras import Cameras, ring
from mmx.guided.raster import Topology
from mmx.guided.shading import images, render
from mmx.media.mesh import TriangleMesh

SHOWN = 256  # pixels a side of views in pictures and animations
TURN, SECONDS = 24, 0.08  # frames of a turntable, and how long each is shown
SHEET = 8  # views in a picture
TILT = 0.25  # radians, from which meshes are looked at from above
GREY = 0.7  # of a mesh without colours


def fitted(mesh: TriangleMesh) -> tuple[np.ndarray, np.ndarray, float]:
    """A mesh's frames (T, N, 3) around the origin and within 1 of it, where their centres were (T, 3), and by how much
    they are smaller than they were."""
    low, high = mesh.frames.min(1), mesh.frames.max(1)
    centres = (low + high) / 2
    moved = mesh.frames - centres[:, None]
    scale = float(np.linalg.norm(moved, axis=-1).max())
    return moved / scale, centres, scale


@torch.no_grad()
def turned(mesh: TriangleMesh, colours: np.ndarray | None, count: int) -> list[Image.Image]:
    """Views of the first frame from `count` places around it, on white. colours (N, 3) in [0, 1]; None is grey."""
    # points in one place are one, so that seams of a texture don't show
    places, first, which = np.unique(fitted(mesh)[0][0], axis=0, return_index=True, return_inverse=True)
    points, surface = torch.from_numpy(places).float(), Topology.of(torch.from_numpy(which.reshape(-1)[mesh.faces]))
    paint = torch.full_like(points, GREY) if colours is None else torch.from_numpy(colours[first]).float()
    cameras, views = ring(count, TILT), []
    with threads(1):  # more would spend their time on waiting for each other
        for k in range(count):  # a view at a time: a mesh may have millions of triangles
            camera = Cameras(cameras.azimuth[k : k + 1], cameras.elevation[k : k + 1])
            views += images(_view(points, surface, paint, camera))
    return views


def _view(points: Tensor, surface: Topology, paint: Tensor, camera: Cameras) -> Tensor:
    return render(points, surface, [paint], camera, size=2 * SHOWN, ground=torch.ones(1, 3))[0].pixels
