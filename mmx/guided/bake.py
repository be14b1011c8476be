"""The field's colours as a picture that lies around the surface: a texture instead of a colour for each point."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmx.guided.raster import Topology, rasterise
from mmx.media.mesh_files import Painted

PIECE = 1 << 16  # texels that are asked for at once


@torch.no_grad()
def baked(painted: Painted, rest: np.ndarray, colour: Callable[[Tensor], Tensor], side: int) -> Painted:
    """A mesh with a texture of `side` pixels instead of its points' colours.

    rest (N, 3): where its points are for `colour`, which gives any points (P, 3) colours (P, 3) in [0, 1]. Points at
    which the surface is cut open are there twice (xatlas).
    """
    import xatlas

    which, faces, places = xatlas.parametrize(
        painted.points.astype(np.float32), painted.faces.astype(np.uint32), painted.normals.astype(np.float32)
    )
    faces, which = faces.astype(np.int64), which.astype(np.int64)
    flat = torch.from_numpy(np.concatenate((places * side, np.ones_like(places[:, :1])), 1).astype(np.float32))
    seen = rasterise(flat[None], surface := Topology.of(torch.from_numpy(faces)), side)
    there = seen.interpolate(surface, torch.from_numpy(rest[which]).float())
    found = torch.cat([colour(part).cpu() for part in there.split(PIECE)]) if len(there) else there
    texture = seen.spread(found, found.mean(0, keepdim=True))[0]
    texels = _bled((texture.clamp(0, 1) * 255).round().byte().numpy(), (seen.faces[0] >= 0).numpy())
    buffer = io.BytesIO()
    Image.fromarray(texels).save(buffer, format="PNG")
    return replace(
        painted,
        points=painted.points[which],
        normals=painted.normals[which],
        colours=painted.colours[which],
        faces=faces,
        places=places,
        texture=buffer.getvalue(),
    )


def _bled(texels: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Empty texels (S, S, 3) take the colour of the nearest filled one, so that no seam shows between charts."""
    from scipy.ndimage import distance_transform_edt

    if not filled.any():
        return texels
    _, (rows, columns) = distance_transform_edt(~filled, return_indices=True)
    return texels[rows, columns]
