"""`mmx avatar` on a mesh of 1,280 triangles: seconds and memory; and the rasteriser beside the naive one.

python -m pytest tests/benchmarks/test_avatar.py -o addopts="" -s
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import trimesh
from torch import Tensor

from mmx.guided.cameras import ring
from mmx.guided.raster import Topology, rasterise
from tests.conftest import ROOT
from tests.small_mesh import ball_file

SECONDS, BYTES = 180, 2e9  # on two cores


def test_four_views_and_150_steps(tmp_path: Path) -> None:
    mesh = ball_file(tmp_path / "ball.obj", fineness=3)
    line = [sys.executable, "-m", "mmx", "avatar", mesh, "a cow", "-o", tmp_path / "cow.glb", "--device", "cpu", "-q"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(list(map(str, line)), env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{took:.0f} s, {cpu:.0f} s of the processor, {after.ru_maxrss / 1024:.0f} MB")
    assert done.returncode == 0 and cpu <= 2 * SECONDS and after.ru_maxrss * 1024 <= BYTES


def dense(screen: Tensor, faces: Tensor, size: int) -> Tensor:
    """Each pixel beside each triangle, as one would write it first."""
    at = torch.arange(size) + 0.5
    centres = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 1, 2)
    found = []
    for view in screen:
        a, b, c = (view[faces[:, k]] for k in range(3))
        sides = []
        for p, q in ((b, c), (c, a), (a, b)):
            way, to = (q - p)[:, :2], centres - p[:, :2]
            sides.append(way[:, 0] * to[..., 1] - way[:, 1] * to[..., 0])
        flat = torch.stack(sides, -1)
        flat = flat / flat.sum(-1, keepdim=True)
        depth = 1 / (flat / torch.stack((a[:, 2], b[:, 2], c[:, 2]), -1)).sum(-1)
        depth = torch.where((flat >= 0).all(-1), depth, torch.inf)
        low, which = depth.min(1)
        found.append(torch.where(low.isfinite(), which, -1))
    return torch.stack(found).view(len(screen), size, size)


def test_the_rasteriser_beside_all_pixels_and_all_triangles() -> None:
    ball = trimesh.creation.icosphere(3)
    surface = Topology.of(torch.tensor(ball.faces))
    screen = ring(4, 0.3).project(torch.tensor(ball.vertices).float(), 128)
    took = []
    for look in (lambda: rasterise(screen, surface, 128).faces, lambda: dense(screen, surface.faces, 128)):
        look()
        started = time.process_time()
        faces = look()
        took.append((time.process_time() - started, faces))
    assert (took[0][1] == took[1][1]).float().mean() > 0.999
    ratio = took[1][0] / took[0][0]
    print(f"{ratio:.0f} times faster")
    assert ratio >= 10
