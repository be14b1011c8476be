"""`mmx train-decoder image --family gan`: the space and then the generator, each resumable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmx.data.photos import Photos, load_photos
from mmx.decoders.base import fingerprint
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.face_words import FILE as WORDS
from mmx.decoders.gan import WEIGHTS, GanDecoder, save_gan_decoder
from mmx.decoders.teacher import Teacher
from mmx.decoders.unclip import TEACHERS
from mmx.errors import ModelError
from mmx.models.store import seal
from mmx.nets.generator import Generator
from mmx.training.card import gan_card
from mmx.training.decoders.gan import GanTask, settle
from mmx.training.decoders.gan_config import GanConfig, GeneratorConfig
from mmx.training.decoders.gaze import Conditioned, FaceSight, Gaze, NameSight, Sight, neighbours
from mmx.training.decoders.seen_space import SEEN_SPACE, Example, SeenSpaceTask
from mmx.training.decoders.space import SpaceConfig
from mmx.training.decoders.stages import last_metrics
from mmx.training.engine.initial import take_fitting
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig
from mmx.training.teachers.efficientnet import EfficientNet, load_efficientnet
from mmx.training.teachers.features import NAME, digest_of, embeds_of, kept, pooled

SCHEDULES = {
    "space": LoopConfig(6500, 64, 1e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=250),
    "gan": LoopConfig(
        60_000,
        16,
        8e-4,
        weight_decay=0.0,
        betas=(0.0, 0.99),
        clip_norm=float("inf"),
        ema=0.998,
        warmup=100,
        bf16=False,  # nothing was measured in less than float32
        validate_steps=250,
        lr_scales=(("critic.", 0.5),),
    ),
}


@dataclass
class GanRecipe:
    """Everything `mmx train-decoder image --family gan` was asked for.

    teacher: a trained decoder's teacher folder, to stay in its space. start: a finished decoder, to go on from its
    weights.
    """

    data: Path
    run: Path
    what: str = "image"  # or face
    seed: int = 0
    device: str = "cpu"
    steps: dict[str, int] = field(default_factory=dict)
    teacher: Path | None = None
    start: Path | None = None
    quiet: bool = False
    command: str = ""
    notes: str = ""
    space: SpaceConfig = SEEN_SPACE
    sizes: GanConfig = field(default_factory=GanConfig)

    @property
    def faces(self) -> bool:
        """Whether faces are drawn."""
        return self.what == "face"

    def schedule(self, stage: str) -> LoopConfig:
        """The stage's schedule with the recipe's seed, device and number of steps."""
        usual = SCHEDULES[stage]
        steps = self.steps.get(stage, usual.max_steps)
        return replace(
            usual, max_steps=steps, warmup=min(usual.warmup, steps // 10), seed=self.seed, device=self.device
        )


@dataclass
class Seen:
    """The photos of both splits, the frozen network, and of photos of things its features (N, F) of each."""

    photos: Photos
    val: Photos
    net: EfficientNet
    features: tuple[Tensor, Tensor] | None = None


def see(recipe: GanRecipe) -> Seen:
    """Read the photos and look at them. Raises ModelError where the frozen network is not installed."""
    net = load_efficientnet().to(recipe.device)
    if recipe.faces:
        everything = load_photos(recipe.data, recipe.sizes.generator.size, "faces")
        return Seen(everything.split("train"), everything.split("val"), net)
    everything = load_photos(recipe.data, recipe.space.image_size)
    photos, val = everything.split("train"), everything.split("val")
    folder = recipe.run / "features"
    features = [
        kept(part, partial(pooled, net), NAME, folder / name) for name, part in (("train", photos), ("val", val))
    ]
    return Seen(photos, val, net, (features[0], features[1]))


def identity_of(recipe: GanRecipe, seen: Seen) -> dict[str, Any]:
    """What weights come out of beside the schedule: the photos, and the models that a run starts from."""
    taken = [part for part in ("teacher", WEIGHTS) if recipe.start and (recipe.start / part).exists()]
    return {
        "data": digest_of(seen.photos.pixels),
        "teacher": recipe.teacher and fingerprint(recipe.teacher.parent, (recipe.teacher.name,)),
        "init": recipe.start and fingerprint(recipe.start, taken),
        "space": asdict(recipe.space),
    }


def train_seen_space(recipe: GanRecipe, seen: Seen) -> tuple[Teacher, Run]:
    """Stage 1: the space, and with it the teacher; and its run."""
    assert seen.features is not None  # of things, not of faces
    before = recipe.start and Teacher.load(recipe.start / "teacher")
    known, dim = None, recipe.space.semantic_dim
    if before and before.net.semantic.out_features == dim:
        known = embeds_of(seen.photos, before, recipe.run / "known")[:, 0, :dim]
    task = SeenSpaceTask(seen.photos, seen.val, Example(seen.net, seen.features, known), recipe.space, recipe.seed)
    if before:
        take_fitting(task.module.space, before.net.state_dict())
    run = Run(task, recipe.schedule("space"), recipe.run / "space", identity=identity_of(recipe, seen))
    run.fit(quiet=recipe.quiet)
    return Teacher(run.averaged().space.cpu(), task.reader), run


def grown(sizes: GeneratorConfig, first: Generator, at: Path) -> GeneratorConfig:
    """The sizes that training goes on with from a finished generator: at each level the larger ones. Raises ModelError
    where it draws another size or from other vectors.
    """
    had = first.sizes
    for name, mine, its in (
        ("levels", len(sizes.widths), len(had["widths"])),
        *((name, getattr(sizes, name), had[name]) for name in ("dim", "noise", "style")),
    ):
        if mine != its:
            raise ModelError(f"the generator of {at} has {name} {its}, and this recipe has {mine}")
    return replace(
        sizes,
        widths=tuple(map(max, sizes.widths, had["widths"])),
        refined=max(sizes.refined, had.get("refined", 0)),
    )


def of_things(recipe: GanRecipe, seen: Seen, teacher: Teacher, gaze: Gaze) -> tuple[Conditioned, Conditioned, Sight]:
    """Photos of things with their embeddings: ten neighbours are real for each, and the frozen network tells the names
    of what is drawn.
    """
    assert seen.features is not None
    synsets = sorted({meta["synset"] for meta in seen.photos.meta})
    splits = []
    for name, photos, features in zip(("train", "val"), (seen.photos, seen.val), seen.features, strict=True):
        labels = torch.tensor([synsets.index(m["synset"]) if m["synset"] in synsets else -1 for m in photos.meta])
        weights = torch.tensor([1.0 if meta.get("concept") else recipe.sizes.plain for meta in photos.meta])
        embeds = embeds_of(photos, teacher, recipe.run / "embeds" / name).transpose(0, 1)
        near = neighbours(features, labels)
        semantic = teacher.net.semantic.out_features
        splits.append(Conditioned(photos, embeds, semantic, labels=labels, near=near, weights=weights))
    return splits[0], splits[1], NameSight(gaze, splits[0], splits[1], seen.features[0])


def of_faces(
    recipe: GanRecipe, seen: Seen, teacher: FaceTeacher, _gaze: Gaze
) -> tuple[Conditioned, Conditioned, Sight]:
    """Faces with their features: a face is what is real for its own; the teacher tells what a drawn one has of it."""
    splits = []
    for name, photos in (("train", seen.photos), ("val", seen.val)):
        labels = torch.tensor([teacher.net.class_of(meta["gender"], meta["age"]) for meta in photos.meta])
        embeds = embeds_of(photos, teacher, recipe.run / "embeds" / name).transpose(0, 1)
        own = torch.arange(len(photos))[:, None]
        weights = torch.ones(len(photos))
        splits.append(Conditioned(photos, embeds, teacher.net.dim, labels=labels, near=own, weights=weights))
    return splits[0], splits[1], FaceSight(teacher.net, splits[1])


CONDITIONED: dict[str, Callable[..., tuple[Conditioned, Conditioned, Sight]]] = {"image": of_things, "face": of_faces}


def train_generator(
    recipe: GanRecipe, seen: Seen, teacher: Teacher | FaceTeacher, after: Sequence[Run] = ()
) -> Generator:
    """Stage 2: the generator, settled. after: the runs that it builds on."""
    sizes, dim = recipe.sizes, teacher.net.dim
    sizes = replace(sizes, generator=replace(sizes.generator, dim=dim), critic=replace(sizes.critic, dim=dim))
    first = GanDecoder.load(recipe.start).net if recipe.start and (recipe.start / WEIGHTS).exists() else None
    if first is not None:
        sizes = replace(sizes, generator=grown(sizes.generator, first, recipe.start))
    gaze = Gaze(seen.net, seen.photos, sizes.critic, sizes.side, recipe.device)
    teacher.to(recipe.device, torch.float32)
    data, val, sight = CONDITIONED[recipe.what](recipe, seen, teacher, gaze)
    task = GanTask(data, val, gaze, sight, config=sizes, seed=recipe.seed)
    if first is not None:
        task.module.generator.grow_from(first)
    identity = identity_of(recipe, seen) | {"sizes": asdict(sizes)}
    run = Run(task, recipe.schedule("gan"), recipe.run / "gan", identity=identity, after=after)
    run.fit(quiet=recipe.quiet)
    generator = run.averaged().generator.cpu()
    settle(generator, data.embeds[0])
    teacher.to("cpu", torch.float32)
    return generator


def _known_of_space(recipe: GanRecipe) -> dict[str, Any]:
    """What the decoder whose teacher is taken measured when that was trained."""
    path = recipe.teacher and recipe.teacher.parent / "metrics.json"
    if not path or not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf8")).get("val", {}).get("space")
    return {"space": found} if found else {}


def train_gan_decoder(recipe: GanRecipe) -> GanDecoder:
    """Both stages; the result is the folder `run/decoder`, with its card. The same recipe on the same run resumes.

    Of faces there is the second alone, in the space of the decoder that --teacher names.
    """
    seen = see(recipe)
    if recipe.teacher:
        teacher = TEACHERS[recipe.what].load(recipe.teacher)
        generator = train_generator(recipe, seen, teacher)
    else:
        teacher, space = train_seen_space(recipe, seen)
        generator = train_generator(recipe, seen, teacher, (space,))
    folder = recipe.run / "decoder"
    name = "starter-face/embedding" if recipe.faces else "starter-image/seen"
    save_gan_decoder(folder, generator, teacher, name=name, teacher_folder=recipe.teacher)
    if recipe.teacher and (recipe.teacher.parent / WORDS).is_file():  # what texts mean there goes with the space
        shutil.copyfile(recipe.teacher.parent / WORDS, folder / WORDS)
    measured = {
        "command": recipe.command,
        "notes": recipe.notes,
        "seed": recipe.seed,
        "photos": len(seen.photos),
        "val": {stage: last_metrics(recipe.run / stage) for stage in SCHEDULES} | _known_of_space(recipe),
    }
    (folder / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (folder / "README.md").write_text(gan_card(recipe.what, measured), encoding="utf8")
    seal(folder)
    return GanDecoder.load(folder)
