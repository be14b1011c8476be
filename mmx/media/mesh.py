"""Bytes ↔ triangle meshes, one of them or a motion of them: what files hold, mended as far as it can be, or said."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmx.errors import InputError, UsageError
from mmx.media.formats import MESHES, MESHES_SAID

MOST = 100_000  # triangles, that are worked on without being asked for
USUAL = 12_000  # triangles, that a coarser mesh is divided up to


@dataclass(frozen=True)
class TriangleMesh:
    """frames (T, N, 3) float32: where its points are, in each moment of a motion, or in the only one. faces (F, 3)
    int64: counter-clockwise from outside, y up. notes: what was found and mended."""

    frames: np.ndarray
    faces: np.ndarray
    notes: tuple[str, ...] = ()


def read_mesh(data: bytes, name: str) -> TriangleMesh:
    """A file's bytes → its points and triangles as they stand. Raises InputError for what holds none that is sane."""
    import trimesh

    kind = kind_of_mesh(data, name)
    try:
        found = trimesh.load_mesh(io.BytesIO(data), file_type=kind, process=False)
        points, faces = np.asarray(found.vertices, np.float32), np.asarray(found.faces, np.int64)
    except Exception as error:  # damaged files make its readers raise anything, from struct.error to IndexError
        raise InputError(f"{name}: the mesh is damaged or cut short", hint=str(error).partition("\n")[0]) from None
    if not len(faces):
        raise InputError(f"{name}: there are no triangles in it", hint="a cloud of points has no surface to paint")
    if not np.isfinite(points).all():
        raise InputError(f"{name}: {int((~np.isfinite(points)).any(1).sum())} of its points are no numbers")
    if not np.ptp(points, 0).any():
        raise InputError(f"{name}: all of its points are in one place")
    return TriangleMesh(points[None], faces)


def kind_of_mesh(data: bytes, name: str) -> str:
    """By the suffix or else by how it begins. Raises InputError for what is none of MESHES."""
    suffix = "." + name.lower().rpartition(".")[2]
    if suffix in MESHES:
        return suffix[1:]
    for start, kind in ((b"glTF", "glb"), (b"ply", "ply"), (b"OFF", "off"), (b"solid", "stl"), (b"v ", "obj")):
        if data.startswith(start):
            return kind
    if len(data) > 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return "stl"
    if b"\nv " in data[:4096]:
        return "obj"
    raise InputError(f"{name}: not a mesh in a format I can read", hint=MESHES_SAID)


def motion_of(meshes: Sequence[tuple[str, TriangleMesh]]) -> TriangleMesh:
    """Meshes by name → one whose frames they are. Raises InputError where one has other triangles than the first."""
    first, rest = meshes[0]
    for name, mesh in meshes:
        if mesh.frames.shape != rest.frames.shape or not np.array_equal(mesh.faces, rest.faces):
            raise InputError(
                f"{name}: its triangles are not those of {first}", hint="the meshes of a motion share their topology"
            )
    return replace(rest, frames=np.concatenate([mesh.frames for _, mesh in meshes]))


def welded(mesh: TriangleMesh) -> TriangleMesh:
    """Points that are one in the first frame are one in all; triangles without an area, and points without a triangle,
    are left out. What remains odd is noted. Raises InputError where nothing remains."""
    _, first, which = np.unique(mesh.frames[0], axis=0, return_index=True, return_inverse=True)
    faces = first[which.reshape(-1)][mesh.faces]
    a, b, c = faces.T
    kept = faces[(a != b) & (b != c) & (c != a)]
    if not len(kept):
        raise InputError("none of its triangles has an area", hint="it may have been scaled to nothing")
    used, renamed = np.unique(kept, return_inverse=True)
    notes = []
    if len(kept) < len(faces):
        notes.append(f"{len(faces) - len(kept)} triangles without an area are left out")
    faces = renamed.reshape(-1, 3)
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    crowded = int((np.unique(edges, axis=0, return_counts=True)[1] > 2).sum())
    if crowded:
        notes.append(f"not a manifold: {crowded} edges have more than two triangles; outlines there are less exact")
    return TriangleMesh(mesh.frames[:, used], faces, tuple(notes))


def brought_to(mesh: TriangleMesh, faces: int | None) -> TriangleMesh:
    """About as many triangles as asked for: fewer by quadric decimation (Garland and Heckbert 1997), more by halving
    edges. None: no fewer, and more only of coarse meshes. Raises InputError where that would be too many."""
    count = len(mesh.faces)
    if faces is None and count > MOST:
        raise InputError(
            f"{count} triangles are more than {MOST}, and would take long", hint="--faces 20000 decimates them"
        )
    if faces is not None and count > faces:
        return _decimated(mesh, faces)
    while 4 * len(mesh.faces) <= (faces or USUAL):
        mesh = _divided(mesh)
    if len(mesh.faces) == count:
        return mesh
    return replace(mesh, notes=(*mesh.notes, f"{count} triangles were divided into {len(mesh.faces)}"))


def _decimated(mesh: TriangleMesh, faces: int) -> TriangleMesh:
    if importlib.util.find_spec("fast_simplification") is None:
        raise UsageError("decimating a mesh (--faces) needs fast_simplification", hint="pip install 'mmx[avatar]'")
    import fast_simplification

    rest, corners = mesh.frames[0], mesh.faces.astype(np.int32)
    *_, collapses = fast_simplification.simplify(rest, corners, target_count=faces, return_collapses=True)
    done = [fast_simplification.replay_simplification(frame, corners, collapses) for frame in mesh.frames]
    found = welded(TriangleMesh(np.stack([p for p, *_ in done]).astype(np.float32), done[0][1].astype(np.int64)))
    note = f"{len(mesh.faces)} triangles were decimated to {len(found.faces)}"
    return replace(found, notes=(*mesh.notes, note))


def _divided(mesh: TriangleMesh) -> TriangleMesh:
    """Each triangle in four, at the middles of its edges."""
    ends = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    edges, which = np.unique(ends, axis=0, return_inverse=True)
    middles = (mesh.frames[:, edges[:, 0]] + mesh.frames[:, edges[:, 1]]) / 2
    a, b, c = mesh.faces.T
    ab, bc, ca = (which.reshape(-1, 3) + mesh.frames.shape[1]).T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    faces = np.concatenate([np.stack(part, 1) for part in parts])
    return replace(mesh, frames=np.concatenate((mesh.frames, middles), 1), faces=faces)
