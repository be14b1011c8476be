"""Meshes that are made here, and as files."""

from __future__ import annotations

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
