"""One request for an avatar, and the files it gives: the same code makes one and makes it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import mmx
from mmx.device import DTYPES, device_of, machine, placed, threads_for
from mmx.extras import require
from mmx.guided.again import Remade, Used
from mmx.guided.avatar import Body, Looking, Sight, paint, terms
from mmx.guided.avatar_given import OFTEN, AvatarJob, Dressed, Order, Watcher
from mmx.guided.cameras import Cameras, ring
from mmx.guided.field import Field
from mmx.guided.residual import Outcome, Schedule, Step, optimise
from mmx.guided.shading import images, vertex_normals
from mmx.guided.turntable import SECONDS, SHEET, SHOWN, TILT, TURN, fitted
from mmx.media.animation import gif_bytes, mp4_bytes
from mmx.media.arrays import read_array
from mmx.media.formats import MODALITIES
from mmx.media.given import Artifact, Given
from mmx.media.image import grid, png_bytes
from mmx.media.mesh import TriangleMesh, brought_to, motion_of, read_mesh, welded
from mmx.media.mesh_files import WRITERS, Painted
from mmx.media.provenance import SCHEMA, dumps, text_chunks
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.base import Space
from mmx.spaces.compass import Compass, known_means
from mmx.spaces.parts import Part, parts_of
from mmx.translate.job import inputs_of, refuse_unknown

SIGMA, COARSE = 5.0, 1.0  # of the field's frequencies, for colours and for offsets, in periods over the mesh's radius
# of Adam, and the share of the steps over which the rate rises to it: sooner, and colours come to lie where their tanh
# lets nothing move them any more (a lion: all red)
RATE, RISE = 1e-3, 0.4
LIBRARIES = ("torch", "trimesh", "pillow", "numpy")
VIDEO = ("av",)


@dataclass(frozen=True)
class Portrait:
    """What is optimised: eyes on a mesh and where they want to be. scale, centres (T, 3): the mesh's points are those
    of the body times the scale, and moved."""

    job: AvatarJob
    mesh: TriangleMesh
    sight: Sight
    target: Tensor
    scale: float
    centres: np.ndarray

    def start(self) -> list[Tensor]:
        """The field's weights before the first step."""
        return [w.to(self.target.device) for w in self.sight.field.start(_generator(self.job.options.seed, 1))]

    def optimised(self, watch: Callable[[Step, Sequence[Tensor]], None] | None = None) -> Outcome:
        """The weights that the losses lead to."""
        options = self.job.options
        schedule = Schedule(options.steps, RATE, ramp_up=RISE)
        if self.job.until is not None:
            schedule = _Part(self.job.until, RATE, whole=schedule)
        wanted = terms(self.target, self.sight.body.surface, smooth=options.smooth, local=options.crops > 0)
        with _alone(self.sight.space):
            return optimise(self.start(), self.sight, wanted, schedule, keep="last", watch=watch)

    @torch.no_grad()
    def painted(self, weights: Sequence[Tensor], frame: int = 0) -> Painted:
        """A frame with the field's colours and moves, where the mesh was."""
        body = self.sight.body
        colours, offsets = self.sight.field(weights, body.frames[0])
        points = body.moved(offsets, frame)
        own = (points * self.scale).cpu().numpy() + self.centres[frame]
        normals = vertex_normals(points, body.surface.faces).cpu().numpy()
        return Painted(own.astype(np.float32), normals, self.mesh.faces, colours.cpu().numpy())

    @torch.no_grad()
    def pictures(self, weights: Sequence[Tensor], cameras: Cameras, frame: int = 0) -> list[Image.Image]:
        """A frame as cameras see it, on white."""
        with _alone(self.sight.space):
            colours, offsets = self.sight.field(weights, self.sight.body.frames[0])
            return images(paint(self.sight.body, colours, offsets, cameras, size=2 * SHOWN, frame=frame).pixels)


@dataclass(frozen=True, kw_only=True)
class _Part(Schedule):
    """The first steps of a longer one."""

    whole: Schedule

    def lr_at(self, step: int) -> float:
        return self.whole.lr_at(step)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 4 + stream)


def _alone(space: Space) -> Any:
    """With one thread in spaces as small as the starter: the same bytes however many cores there are."""
    return threads_for(*space.models) if space.models else nullcontext()


def portrait(space: Space, job: AvatarJob) -> Portrait:
    """Read everything and look once. Raises InputError, ModelError, UsageError."""
    options = job.options
    found = motion_of([(given.name, read_mesh(given.data, given.name)) for given in job.meshes])
    mesh = brought_to(welded(found), options.faces)
    own, centres, scale = fitted(mesh)
    device = device_of(space.models[0]) if space.models else torch.device("cpu")
    frames = torch.from_numpy(own).float().to(device)
    body = Body.of(frames, torch.from_numpy(mesh.faces).to(device))
    means = known_means(space).clone()
    target = _target(space, means, job.query).to(device)
    field = Field.draw(_generator(options.seed, 0), sigma=SIGMA, coarse=COARSE, reach=options.reach)
    looking = Looking(views=options.views, size=options.size, local=options.crops)
    dtype = None if options.dtype == "auto" else DTYPES[placed(job.device, options.dtype).name]
    mean = means[MODALITIES.index("image")].to(device)
    sight = Sight(space, mean=mean, body=body, field=field, looking=looking, seed=options.seed, dtype=dtype)
    with _alone(space):
        front = math.radians(options.front) if options.front is not None else sight.best_front(target)
    sight = replace(sight, front=front)
    return Portrait(job, mesh, sight, target, scale=scale, centres=centres)


def _target(space: Space, means: Tensor, query: Sequence[Given]) -> Tensor:
    """The weighted sum of what is wanted, as a unit vector (D,)."""
    compass = Compass(space, means)
    return compass.sum([(given.weight, compass.direction(_parts(space, given))) for given in query]).clone()


def _parts(space: Space, given: Given) -> list[Part]:
    if given.is_text:
        return [Part("text", given.data.decode())]
    if given.role == "array":
        return [Part("array", read_array(given.data, given.name))]
    return list(parts_of(space, given.data, given.name))


def dress(space: Space, order: Order, watcher: Watcher) -> Dressed:
    """All steps, or those before it was ended, and what is wanted of the last one. Raises as `portrait`, UsageError
    where a package is missing."""
    job = order.job
    if job.options.texture:
        require("a texture (--texture)", "xatlas")
    made = portrait(space, job)
    watcher.ready(list(made.mesh.notes), len(made.mesh.faces))

    def watch(step: Step, weights: Sequence[Tensor]) -> None:
        watcher.step(step.index + 1, step.total, step.losses)
        if order.previews and step.index % OFTEN == 0:
            watcher.preview(preview_bytes(made, weights))

    outcome = made.optimised(watch)
    if outcome.stopped:
        made = replace(made, job=replace(job, until=outcome.step))
    pieces = [(piece.suffix, piece.frame) for piece in order.pieces] if outcome.step else []
    artifacts = (Artifact(artifact(made, outcome.residual, *own), record_of(made, *own)) for own in pieces)
    losses = outcome.steps[-1].losses if outcome.steps else {}
    return Dressed(artifacts, outcome.step, losses, math.degrees(made.sight.front), outcome.stopped)


def artifact(made: Portrait, weights: Sequence[Tensor], suffix: str, frame: int | None = None) -> bytes:
    """A file's bytes. suffix: of .obj .ply .glb .png .gif .mp4; frame: of a motion, None is all of it where the kind
    can hold that, and the first where it can't."""
    record, options = record_of(made, suffix, frame), made.job.options
    if suffix in WRITERS:
        painted = made.painted(weights, frame or 0)
        if suffix == ".glb" and options.texture:
            from mmx.guided.bake import baked

            rest, look = made.sight.body.frames[0], made.sight.field
            painted = baked(painted, rest.cpu().numpy(), lambda p: look(weights, p.to(rest))[0], options.texture)
        return WRITERS[suffix](painted, record)
    front, count = made.sight.front, len(made.mesh.frames)
    if count > 1:
        side = Cameras(torch.tensor([front + 0.6]), torch.tensor([TILT]))
        shown = np.linspace(0, count - 1, SHEET).round().astype(int) if suffix == ".png" else range(count)
        pictures = [made.pictures(weights, side, int(k))[0] for k in shown]
    else:
        pictures = made.pictures(weights, ring(SHEET if suffix == ".png" else TURN, TILT, front))
    if suffix == ".png":
        return png_bytes(grid(pictures, SHEET // 2), text_chunks(record))
    write = {".gif": gif_bytes, ".mp4": mp4_bytes}[suffix]
    return write(pictures, SECONDS, dumps(record))


def record_of(made: Portrait, suffix: str, frame: int | None) -> dict[str, Any]:
    """What an artifact says of itself. File names without folders, no times."""
    job, space = made.job, made.sight.space
    stopped = {} if job.until is None else {"until": job.until}
    libraries = LIBRARIES + (VIDEO if suffix == ".mp4" else ())
    return {
        "schema": SCHEMA,
        "version": mmx.__version__,
        "synthetic": True,
        "command": "avatar",
        "inputs": [given.as_dict() for given in (*job.meshes, *job.query)],
        "layout": suffix[1:],
        "indices": [0 if frame is None else frame],
        "settings": {**asdict(job.options), "device": job.device, **stopped},
        "space": Used(space.name, space.fingerprint).as_dict(),
        "heard": [],
        "machine": machine(),
        "libraries": {name: installed(name) for name in libraries},
    }


def again(record: dict[str, Any], contents: Sequence[tuple[str, bytes]], space: Space) -> Remade:
    """The artifact of a record, made anew. Raises InputError for inputs that are not here."""
    refuse_unknown(record, [*(option.name for option in fields(AvatarOptions)), "device", "until"])
    given, settings = inputs_of(record, contents), dict(record["settings"])
    device, until = settings.pop("device"), settings.pop("until", None)
    meshes, query = (tuple(g for g in given if (g.role == "mesh") == mesh) for mesh in (True, False))
    made = portrait(space, AvatarJob(meshes, query, AvatarOptions(**settings), device, until))
    weights, suffix = made.optimised().residual, f".{record['layout']}"
    frame = record["indices"][0] if len(meshes) > 1 and suffix in WRITERS else None
    used = {"space": Used(space.name, space.fingerprint)}
    return Remade(artifact(made, weights, suffix, frame), record_of(made, suffix, frame), used)


def preview_bytes(made: Portrait, weights: Sequence[Tensor]) -> bytes:
    """Four views as a PNG, without a record: what it will be is not yet there."""
    return png_bytes(grid(made.pictures(weights, ring(4, TILT, made.sight.front)), 4))
