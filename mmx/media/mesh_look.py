"""What a mesh's file says of its looks and of its size: colours of points, counts, bounds, whether it is closed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mmx.errors import InputError
from mmx.media.mesh import TriangleMesh, kind_of_mesh, welded


def srgb(light: np.ndarray) -> np.ndarray:
    """How much light (0 to 1) → the values that screens show it by (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def read_colours(data: bytes, name: str, count: int) -> np.ndarray | None:
    """The colours of the `count` points that `read_mesh` finds in a file, (N, 3) in [0, 1], of the points themselves or
    of where they lie on a texture; None where the file says nothing that can be understood."""
    import trimesh

    try:
        scene = trimesh.load_scene(io.BytesIO(data), file_type=kind_of_mesh(data, name), process=False)
        parts = [scene.geometry[scene.graph[node][1]] for node in scene.graph.nodes_geometry]
        found = [_colours(part.visual) for part in parts]
    except Exception:  # read_mesh has read it: only what it says of colours is odd, and its readers raise anything
        return None
    if any(part is None for part in found) or sum(map(len, found)) != count:
        return None
    return np.concatenate(found)


def _colours(visual: Any) -> np.ndarray | None:
    """(N, 3) of one part's looks as trimesh holds them."""
    if visual.kind == "vertex":
        return visual.vertex_colors[:, :3] / 255
    if visual.kind != "texture":
        return None
    looks = visual.material
    if visual.uv is not None and (getattr(looks, "image", None) or getattr(looks, "baseColorTexture", None)):
        return visual.to_color().vertex_colors[:, :3] / 255
    own = visual.vertex_attributes.get("color")  # of a glTF with a material: light as it is, or in whole numbers
    if own is None:
        return None
    return srgb(own[:, :3] / (1 if own.dtype.kind == "f" else np.iinfo(own.dtype).max))


def facts(mesh: TriangleMesh) -> list[str]:
    """Lines on a mesh as it was read: counts, whether it is closed, bounds, area, and the volume of what is closed."""
    import trimesh

    points, faces = mesh.frames[0], mesh.faces
    try:
        whole = welded(mesh)
    except InputError as error:
        return [f"{len(points)} points  {len(faces)} triangles", error.message]
    solid = trimesh.Trimesh(whole.frames[0], whole.faces, process=False)
    places = whole.frames.shape[1]
    count = f"{len(points)} points" + (f" in {places} places" if places < len(points) else "")
    if solid.is_watertight:
        closed = "watertight" if solid.is_winding_consistent else "closed, but its triangles face both ways"
    else:
        edges = np.unique(np.sort(solid.edges, 1), axis=0, return_counts=True)[1]
        closed = f"not watertight: {int((edges == 1).sum())} edges at holes, {int((edges > 2).sum())} of over two faces"
    parts = int(solid.body_count)
    size = f"area {solid.area:.4g}" + (f"  volume {solid.volume:.4g}" if solid.is_volume else "")
    bounds = "  ".join(f"{axis} {low:.4g} to {high:.4g}" for axis, low, high in zip("xyz", *solid.bounds, strict=True))
    head = f"{count}  {len(faces)} triangles  {parts} {'part' if parts == 1 else 'parts'}  {closed}"
    return [head, f"{bounds}  {size}", *whole.notes]
