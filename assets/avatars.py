"""The README's avatars, and the numbers beside them: python assets/avatars.py [REPORT DATA]

The mesh is made here: a body, a head and four legs. With DATA, a folder with images-*.tar and meshes/*.obj, it also
measures, into REPORT, where the judge is kept (a head on a network that guided nothing), and into avatars.json here,
from which tests/test_readme.py fills the README's table. A table that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from mmx.data.photos import Photos, load_photos
from mmx.evaluation.avatar import MODES, Ask, Critic, measure_one
from mmx.evaluation.judge import train_judge
from mmx.evaluation.report import Report
from mmx.guided.avatar_given import AvatarJob
from mmx.guided.avatar_job import Portrait, portrait
from mmx.guided.cameras import Cameras, ring
from mmx.guided.turntable import TILT
from mmx.media.animation import gif_bytes
from mmx.media.given import Given
from mmx.media.image import grid
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.base import Space
from mmx.spaces.load import load_space

ASSETS = Path(__file__).parent
ASKED = (  # a mesh, what it is to become, what the judge calls that, and in which modes
    ("spot.obj", "a cow", "cow", tuple(MODES)),
    ("human.obj", "a monkey", "monkey", ("avatar",)),
    ("animal.glb", "meow.wav", "cat", ("avatar",)),
)
TAUGHT, SIDE = 21_504, 64  # train photos that the judge learns from; pixels of a photo
SHOWN, TURN, PANEL = ("a lion", "meow.wav"), 24, 192  # of the README's GIF; frames, and pixels of a picture


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


def walking(rest: np.ndarray, moment: float) -> np.ndarray:
    """The animal's points (N, 3) at a moment of its walk in [0, 1): each leg swings about where it begins, the two of a
    diagonal together."""
    below = np.clip(-0.1 - rest[:, 1], 0, None)  # how far down a leg
    side = np.sign(rest[:, 0]) * np.sign(rest[:, 2])
    angle = 0.5 * side * np.sin(2 * np.pi * moment)
    return rest + np.stack((0 * below, below * (1 - np.cos(angle)), below * np.sin(angle)), 1)


def job(mesh: Path, query: str, **options: float) -> AvatarJob:
    """What `mmx avatar` would be asked for; a mesh that is a folder is a motion."""
    files = sorted(mesh.iterdir()) if mesh.is_dir() else [mesh]
    sound = ASSETS / "samples" / query
    is_text = not query.endswith(".wav")
    wanted = Given(query, query.encode() if is_text else sound.read_bytes(), "query", is_text=is_text)
    given = tuple(Given(file.name, file.read_bytes(), "mesh") for file in files)
    return AvatarJob(given, (wanted,), AvatarOptions(**options), "cpu")


def turning(made: Portrait) -> list[list[Image.Image]]:
    """Pictures of a mesh from all around, before and after."""
    start, weights = made.start(), made.optimised().residual
    cameras = ring(TURN, TILT, made.sight.front)
    frames = [k * len(made.mesh.frames) // TURN for k in range(TURN)]
    found = []
    for w in (start, weights):
        each = (
            made.pictures(w, Cameras(cameras.azimuth[k : k + 1], cameras.elevation[k : k + 1]), frames[k])[0]
            for k in range(TURN)
        )
        found.append([picture.resize((PANEL, PANEL), Image.Resampling.LANCZOS) for picture in each])
    return found


def shown(space: Space, mesh: Path) -> bytes:
    """A GIF of an animal as it was made, and as each of SHOWN."""
    turned = [turning(portrait(space, job(mesh, query))) for query in SHOWN]
    columns = [turned[0][0], *(after for _, after in turned)]
    return gif_bytes([grid(list(row), len(row), 0) for row in zip(*columns, strict=True)], 0.08, "")


def critic(data: Path, report: Path) -> tuple[Critic, Photos]:
    """The judge, trained once, and the photos of val."""
    whole = load_photos(data, SIDE)
    train, val = whole.split("train"), whole.split("val")
    labels = sorted({meta["concept"] for meta in whole.meta if meta.get("concept")})
    some = Photos(torch.cat((train.pixels[:TAUGHT], val.pixels)), train.meta[:TAUGHT] + val.meta)
    return Critic(train_judge(some, labels, report / "judge", network="efficientnet-lite2"), labels), val


def measured(space: Space, data: Path, report: Path) -> None:
    """Write avatars.json, and what there is to look at into the report's folder."""
    judge, val = critic(data, report)
    tables, examples = {}, []
    for name, query, label, modes in ASKED:
        place = ASSETS / "samples" / name if name == "animal.glb" else data / "meshes" / name
        kept = report / f"{name}-{label}.json"
        ask = Ask(job(place, query), label)
        if not kept.exists():
            others = [other for _, _, other, _ in ASKED if other != label]
            table, example = measure_one(space, ask, others, judge, modes=modes, photos=val, done=print)
            kept.write_text(json.dumps(table, indent=1), encoding="utf8")
            grid(list(example.results), 4).save(kept.with_suffix(".png"))
            examples.append(example)
        tables[f"{name.partition('.')[0]} as {query}"] = json.loads(kept.read_text(encoding="utf8"))
        about = {"task": "avatar", "split": "24 held-out views", "judge": judge.judge.name}
        Report(tables, examples).write(report, about)
        text = json.dumps({"evaluation": about | tables}, indent=1)
        (ASSETS / "avatars.json").write_text(text + "\n", encoding="utf8")


def main() -> None:
    """Write samples/animal.glb, avatar.gif, and avatars.json where there is something to measure with."""
    place, space = ASSETS / "samples" / "animal.glb", load_space(device="cpu")
    place.write_bytes(animal().export(file_type="glb"))
    if len(sys.argv) > 2:
        return measured(space, Path(sys.argv[2]), Path(sys.argv[1]))
    (ASSETS / "avatar.gif").write_bytes(shown(space, place))


if __name__ == "__main__":
    main()
