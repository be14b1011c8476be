"""Meshes that are made here, and as files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import trimesh

QUAD = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n"


def exported(mesh: trimesh.Trimesh, kind: str) -> bytes:
    """A mesh as a file's bytes."""
    data = mesh.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def ball_file(path: Path, fineness: int = 1, stretch: tuple[float, float, float] = (1, 1, 1)) -> Path:
    """A ball, stretched along the axes."""
    ball = trimesh.creation.icosphere(fineness)
    ball.vertices *= np.array(stretch)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(exported(ball, path.suffix[1:]))
    return path


def glb_colours(data: bytes) -> np.ndarray:
    """The points' colours (N, 3) of a GLB of ours, as glTF has them: trimesh drops them beside a material."""
    (size,) = struct.unpack("<I", data[12:16])
    tree = json.loads(data[20 : 20 + size])
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    view = tree["bufferViews"][accessor["bufferView"]]
    start = 20 + size + 8 + view["byteOffset"]
    return np.frombuffer(data[start : start + view["byteLength"]], "<f4").reshape(accessor["count"], 3)
