"""The protocol of avatars: what views of a mesh mean that no step looked at, before and after, and what became of its
surface.

Beside the space that guided, a judge says what the views show that did not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmx.data.photos import Photos
from mmx.evaluation.judge import Judge
from mmx.evaluation.report import Example, Table
from mmx.guided.avatar import held_out
from mmx.guided.avatar_given import AvatarJob
from mmx.guided.avatar_job import Portrait, portrait
from mmx.spaces.base import Space

MODES = {  # name → how it differs from what is asked for
    "avatar": {},
    "one view": {"views": 1},
    "without the Laplacian": {"smooth": 0.0},
    "without crops": {"crops": 0},
    "colours only": {"reach": 0.0},
}
PHOTOS = 50  # real ones of a concept, for the oracle row
SHOWN = 4  # views of each in a report


@dataclass(frozen=True)
class Ask:
    """What a mesh is to become, and which of the judge's labels that is."""

    job: AvatarJob
    label: str

    @property
    def title(self) -> str:
        """The mesh's file, and what was asked for."""
        return f"{self.job.meshes[0].name}, {' + '.join(given.name for given in self.job.query)}"


@dataclass(frozen=True)
class Critic:
    """Who says what pictures show. labels: as the judge's outputs are numbered."""

    judge: Judge
    labels: Sequence[str]

    def says(self, pictures: Sequence[Image.Image], label: str) -> dict[str, float]:
        """judge: the mean share that it gives the label; named: of the pictures that it calls so."""
        shares, at = self.judge(pictures)[0].softmax(-1), list(self.labels).index(label)
        return {"judge": float(shares[:, at].mean()), "named": float((shares.argmax(-1) == at).float().mean())}


def measure_one(
    space: Space,
    ask: Ask,
    others: Sequence[str],
    critic: Critic,
    *,
    modes: Sequence[str] = tuple(MODES),
    photos: Photos | None = None,
    done: Callable[[str, dict[str, float]], None] | None = None,
) -> tuple[Table, Example]:
    """A mesh in some of MODES, before it, and beside it. others: labels that it is not to become. photos: real ones.
    done: is told of each row."""
    made, table = portrait(space, ask.job), Table()

    def add(name: str, row: dict[str, float]) -> None:
        table[name] = row
        if done is not None:
            done(name, row)

    before = views(made, made.start())
    shown, wrong = before[:SHOWN], []
    for name in modes:
        own = portrait(space, replace(ask.job, options=replace(ask.job.options, **MODES[name])))
        started = time.process_time()
        weights = own.optimised().residual
        took, seen = time.process_time() - started, views(own, weights)
        shown += seen[:SHOWN]
        add(name, likeness(own, seen) | critic.says(seen, ask.label) | surface_of(own, weights) | {"cpu_s": took})
        wrong = wrong or [critic.says(seen, other) for other in others]  # of the first, the avatar
    add("before", likeness(made, before) | critic.says(before, ask.label))
    add("random: called another's name", {c: sum(w[c] for w in wrong) / len(wrong) for c in wrong[0]})
    if photos is not None:
        real = [Image.fromarray(p.numpy()) for p in _of(photos, ask.label)]
        add("oracle: photos of it", likeness(made, real) | critic.says(real, ask.label))
    return table, Example(ask.title, shown[0], shown[SHOWN:])


def views(made: Portrait, weights: Sequence[Tensor]) -> list[Image.Image]:
    """From 24 cameras that no step used."""
    return made.pictures(weights, held_out(made.sight.front))


@torch.no_grad()
def likeness(made: Portrait, pictures: Sequence[Image.Image]) -> dict[str, float]:
    """space: mean cosine of what the guiding space sees to what was wanted."""
    parts = [torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255 for picture in pictures]
    seen = torch.cat([made.sight.directions(part.to(made.target.device)) for part in parts])
    return {"space": float((seen @ made.target).mean())}


def surface_of(made: Portrait, weights: Sequence[Tensor]) -> dict[str, float]:
    """moved_%: mean way of points, in hundredths of the mesh's radius. spread: standard deviation, over edges, of how
    many times longer each became. crossings: of edges with triangles, for each thousand triangles, beyond those before.
    """
    rest, faces = made.mesh.frames[0], made.mesh.faces
    after = made.painted(weights).points
    edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0)
    more = crossings(after, edges, faces) - crossings(rest, edges, faces)
    return {
        "moved_%": 100 * float(np.linalg.norm(after - rest, axis=1).mean() / made.scale),
        "spread": float((_lengths(after, edges) / _lengths(rest, edges)).std()),
        "crossings": 1000 * more / len(faces),
    }


def _lengths(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)


def crossings(points: np.ndarray, edges: np.ndarray, faces: np.ndarray) -> int:
    """How many pairs there are of an edge (E, 2) and a triangle (F, 3) of points (N, 3) that it runs through, and
    shares no corner with (Möller and Trumbore 1997)."""
    edge, face = _near(points, edges, faces)
    a, b, c = points[faces[face]].transpose(1, 0, 2).astype(float)
    start, stop = points[edges[edge]].transpose(1, 0, 2).astype(float)
    way, first, second, to = stop - start, b - a, c - a, start - a
    across = np.cross(way, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / (first * across).sum(-1)
        turned = np.cross(to, first)
        u, v, t = (scale * dot.sum(-1) for dot in (to * across, way * turned, second * turned))
        return int(((u > 0) & (v > 0) & (u + v < 1) & (t > 0) & (t < 1)).sum())


def _near(points: np.ndarray, edges: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of an edge and a triangle that may touch and have no corner in common."""
    from scipy.spatial import cKDTree

    centres, middles = points[faces].mean(1), points[edges].mean(1)
    reach = np.linalg.norm(points[faces] - centres[:, None], axis=-1).max() + _lengths(points, edges).max() / 2
    found = cKDTree(middles).sparse_distance_matrix(cKDTree(centres), reach, output_type="coo_matrix")
    apart = (edges[found.row][:, :, None] != faces[found.col][:, None, :]).all((1, 2))
    return found.row[apart], found.col[apart]


def _of(photos: Photos, label: str) -> Tensor:
    return photos.pixels[[i for i, meta in enumerate(photos.meta) if meta.get("concept") == label][:PHOTOS]]
