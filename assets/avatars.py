"""The README's avatar, and the numbers beside it: python assets/avatars.py [JUDGE DATA]

The mesh is made here: a body, a head and four legs. JUDGE: the run of a judge that `mmx eval sound2img --judge-network
efficientnet-lite2` trained, a head on a network that guided nothing; DATA: a folder with meshes/*.obj to measure on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

from mmx.evaluation.judge import Judge, JudgeHead, _looked
from mmx.guided.avatar import held_out
from mmx.guided.avatar_job import AvatarJob, Portrait, artifact, portrait
from mmx.media.given import Given
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.load import load_space
from mmx.training.teachers.efficientnet import load_efficientnet

ASSETS = Path(__file__).parent
SHOWN = (("a cow", "cow"), ("a lion", "lion"), ("a fire", "fire"))
ROWS = {
    "4 views, 150 steps": {},
    "one view": {"views": 1},
    "without the Laplacian": {"smooth": 0.0},
    "without crops": {"crops": 0},
    "colours only": {"reach": 0.0},
}


def animal() -> trimesh.Trimesh:
    """Four-legged, of balls and capsules that are one surface."""
    parts = [ball((0, 0, 0), (0.42, 0.38, 0.75)), ball((0, 0.42, 0.78), (0.3, 0.3, 0.36))]
    parts += [ball((0, 0.33, 1.05), (0.2, 0.17, 0.2))]
    parts += [ball((x, -0.45, z), (0.13, 0.45, 0.14)) for x in (-0.24, 0.24) for z in (-0.5, 0.45)]
    parts += [ball((x, 0.68, 0.68), (0.16, 0.08, 0.06)) for x in (-0.26, 0.26)]
    return trimesh.util.concatenate(parts)


def ball(middle: tuple[float, float, float], radii: tuple[float, float, float]) -> trimesh.Trimesh:
    """An ellipsoid."""
    part = trimesh.creation.icosphere(2)
    part.apply_scale(radii)
    part.apply_translation(middle)
    return part


def job(mesh: bytes, name: str, query: str, **options: float) -> AvatarJob:
    """What `mmx avatar` would be asked for."""
    text = Given(query, query.encode(), "query", is_text=True)
    return AvatarJob((Given(name, mesh, "mesh"),), (text,), AvatarOptions(**options), "cpu")


class Measured:
    """Scores of views that no step used."""

    def __init__(self, run: Path) -> None:
        from safetensors.torch import load_file

        state = max(run.glob("state-*"))
        self.labels = json.loads((state / "state.json").read_text())["identity"]["labels"]
        net = JudgeHead(len(self.labels))
        net.load_state_dict(load_file(state / "average.safetensors"))
        self.judge = Judge(net, partial(_looked, load_efficientnet("lite2")))

    @torch.no_grad()
    def scores(self, made: Portrait, weights: Sequence[Tensor], concept: str) -> dict[str, float]:
        """space: mean cosine to what was wanted; judge: mean share that it gives the concept; named: of views."""
        pictures = made.pictures(weights, held_out(made.sight.front))
        pixels = torch.stack([torch.from_numpy(np.asarray(p).copy()) for p in pictures]).permute(0, 3, 1, 2) / 255
        logits, _ = self.judge(pictures)
        at = self.labels.index(concept)
        return {
            "space": float((made.sight.directions(pixels) @ made.target).mean()),
            "judge": float(logits.softmax(-1)[:, at].mean()),
            "named": float((logits.argmax(-1) == at).float().mean()),
        }


def shape(made: Portrait, weights: Sequence[Tensor]) -> dict[str, float]:
    """moved: mean way of points, of the radius; spread: standard deviation of how much longer edges are than before;
    crossings: of edges with triangles, per thousand triangles, that were not there before."""
    rest, faces = made.mesh.frames[0], made.mesh.faces
    after = made.painted(weights).points
    edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0)
    longer = [np.linalg.norm(p[edges[:, 0]] - p[edges[:, 1]], axis=1) for p in (after, rest)]
    more = crossings(after, edges, faces) - crossings(rest, edges, faces)
    return {
        "moved": float(np.linalg.norm(after - rest, axis=1).mean() / made.scale),
        "spread": float((longer[0] / longer[1]).std()),
        "crossings": 1000 * more / len(faces),
    }


def crossings(points: np.ndarray, edges: np.ndarray, faces: np.ndarray) -> int:
    """How many pairs there are of an edge and a triangle that it runs through."""
    from scipy.spatial import cKDTree

    middles, ends = points[faces].mean(1), points[edges]
    reach = np.linalg.norm(points[faces] - middles[:, None], axis=-1).max()
    reach += np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1).max() / 2
    near = cKDTree(ends.mean(1)).sparse_distance_matrix(cKDTree(middles), reach, output_type="coo_matrix")
    edge, face = near.row, near.col
    apart = (edges[edge][:, :, None] != faces[face][:, None, :]).all((1, 2))
    edge, face = edge[apart], face[apart]
    a, b, c = points[faces[face]].transpose(1, 0, 2).astype(float)
    start, way = ends[edge, 0].astype(float), (ends[edge, 1] - ends[edge, 0]).astype(float)
    e, f = b - a, c - a
    h = np.cross(way, f)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / (e * h).sum(-1)
        to = start - a
        u, q = scale * (to * h).sum(-1), np.cross(to, e)
        v, t = scale * (way * q).sum(-1), scale * (f * q).sum(-1)
        return int(((u > 0) & (v > 0) & (u + v < 1) & (t > 0) & (t < 1)).sum())


def table(run: Path, data: Path, out: Path) -> None:
    """Write what was measured, as JSON, row by row."""
    space, measured = load_space(device="cpu"), Measured(run)
    path = data / "meshes" / "spot.obj"
    done = json.loads(out.read_text()) if out.exists() else {}
    for query, concept in SHOWN:
        own = done.setdefault(query, {})
        for name, options in ROWS.items():
            if name in own:
                continue
            made = portrait(space, job(path.read_bytes(), path.name, query, **options))
            if "before" not in own:
                own["before"] = measured.scores(made, made.start(), concept)
            weights = made.optimised().residual
            own[name] = measured.scores(made, weights, concept) | shape(made, weights)
            others = {c for _, c in SHOWN if c != concept}
            if not options:
                own["as something else"] = {
                    "judge": float(np.mean([measured.scores(made, weights, c)["judge"] for c in others]))
                }
            out.write_text(json.dumps(done, indent=1))
            print(query, name, own[name], flush=True)


def main() -> None:
    """Write samples/animal.glb, avatar.gif, and avatars.json where there is something to measure with."""
    mesh = animal().export(file_type="glb")
    (ASSETS / "samples" / "animal.glb").write_bytes(mesh)
    space = load_space(device="cpu")
    made = portrait(space, job(mesh, "animal.glb", "a lion", steps=300))
    weights = made.optimised().residual
    (ASSETS / "avatar.gif").write_bytes(artifact(made, weights, ".gif"))
    if len(sys.argv) > 2:
        table(Path(sys.argv[1]), Path(sys.argv[2]), ASSETS / "avatars.json")


if __name__ == "__main__":
    main()
