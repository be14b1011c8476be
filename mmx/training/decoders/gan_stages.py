"""`mmx train-decoder image --family gan`: the space and then the generator, each resumable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mmx.data.photos import Photos, load_photos
from mmx.decoders.base import fingerprint
from mmx.decoders.gan import WEIGHTS, GanDecoder, save_gan_decoder
from mmx.decoders.teacher import Teacher
from mmx.models.store import seal
from mmx.nets.generator import Generator
from mmx.training.card import gan_card
from mmx.training.decoders.gan import Conditioned, GanTask, settle
from mmx.training.decoders.gan_config import GanConfig
from mmx.training.decoders.seen_space import SEEN_SPACE, SeenSpaceTask
from mmx.training.decoders.space import SpaceConfig
from mmx.training.decoders.stages import last_metrics
from mmx.training.engine.initial import take_fitting
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig
from mmx.training.teachers.efficientnet import EfficientNet, load_efficientnet
from mmx.training.teachers.features import NAME, digest_of, embeds_of, kept, pooled

SCHEDULES = {
    "space": LoopConfig(1200, 64, 1e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=100),
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

    def schedule(self, stage: str) -> LoopConfig:
        """The stage's schedule with the recipe's seed, device and number of steps."""
        usual = SCHEDULES[stage]
        steps = self.steps.get(stage, usual.max_steps)
        return replace(
            usual, max_steps=steps, warmup=min(usual.warmup, steps // 10), seed=self.seed, device=self.device
        )


@dataclass
class Seen:
    """The photos of both splits, and the frozen network's features (N, F) of each."""

    photos: Photos
    val: Photos
    features: tuple[Tensor, Tensor]
    net: EfficientNet


def see(recipe: GanRecipe) -> Seen:
    """Read the photos and look at them. Raises ModelError where the frozen network is not installed."""
    net = load_efficientnet().to(recipe.device)
    everything = load_photos(recipe.data, recipe.space.image_size)
    photos, val = everything.split("train"), everything.split("val")
    folder = recipe.run / "features"
    features = [
        kept(part, partial(pooled, net), NAME, folder / name) for name, part in (("train", photos), ("val", val))
    ]
    return Seen(photos, val, (features[0], features[1]), net)


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
    task = SeenSpaceTask(seen.photos, seen.val, seen.features, recipe.space, recipe.seed)
    if recipe.start is not None:
        take_fitting(task.module.space, Teacher.load(recipe.start / "teacher").net.state_dict())
    run = Run(task, recipe.schedule("space"), recipe.run / "space", identity=identity_of(recipe, seen))
    run.fit(quiet=recipe.quiet)
    return Teacher(run.averaged().space.cpu(), task.reader), run


def train_generator(recipe: GanRecipe, seen: Seen, teacher: Teacher, after: Sequence[Run] = ()) -> Generator:
    """Stage 2: the generator, settled. after: the runs that it builds on."""
    sizes = recipe.sizes
    dim, semantic = teacher.net.dim, teacher.net.semantic.out_features
    sizes = replace(sizes, generator=replace(sizes.generator, dim=dim), critic=replace(sizes.critic, dim=dim))
    splits = [
        Conditioned(
            photos, embeds_of(photos, teacher, recipe.run / "embeds" / name).transpose(0, 1), features, semantic
        )
        for name, photos, features in zip(("train", "val"), (seen.photos, seen.val), seen.features, strict=True)
    ]
    task = GanTask(*splits, seen.net, sizes, recipe.seed, recipe.device)
    if recipe.start is not None and (recipe.start / WEIGHTS).exists():
        take_fitting(task.module.generator, GanDecoder.load(recipe.start).net.state_dict())
    identity = identity_of(recipe, seen) | {"sizes": asdict(sizes)}
    run = Run(task, recipe.schedule("gan"), recipe.run / "gan", identity=identity, after=after)
    run.fit(quiet=recipe.quiet)
    generator = run.averaged().generator.cpu()
    settle(generator, splits[0].embeds[0])
    return generator


def train_gan_decoder(recipe: GanRecipe) -> GanDecoder:
    """Both stages; the result is the folder `run/decoder`, with its card. The same recipe on the same run resumes."""
    seen = see(recipe)
    if recipe.teacher:
        teacher = Teacher.load(recipe.teacher)
        generator = train_generator(recipe, seen, teacher)
    else:
        teacher, space = train_seen_space(recipe, seen)
        generator = train_generator(recipe, seen, teacher, (space,))
    folder = recipe.run / "decoder"
    save_gan_decoder(folder, generator, teacher, name="starter-image/seen", teacher_folder=recipe.teacher)
    measured = {
        "command": recipe.command,
        "notes": recipe.notes,
        "seed": recipe.seed,
        "photos": len(seen.photos),
        "val": {stage: last_metrics(recipe.run / stage) for stage in SCHEDULES},
    }
    (folder / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (folder / "README.md").write_text(gan_card(measured), encoding="utf8")
    seal(folder)
    return GanDecoder.load(folder)
