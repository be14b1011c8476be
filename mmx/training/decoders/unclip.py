"""`mmx train-decoder image` and `face`: the stages of a decoder, one after the other, each resumable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmx.data.photos import Photos, load_photos
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.teacher import Teacher
from mmx.decoders.unclip import TEACHERS, ImageDecoder, save_image_decoder
from mmx.models.store import seal
from mmx.training.card import decoder_card
from mmx.training.decoders.codec import CodecConfig, CodecTask, whiten_latents
from mmx.training.decoders.denoiser import DenoiserConfig, DenoiserTask, FinishTask, build_scheduler, first_guesses
from mmx.training.decoders.face import FaceConfig, FaceTask
from mmx.training.decoders.space import SpaceConfig, SpaceTask, encode_all, to_images
from mmx.training.engine.checkpoint import states
from mmx.training.engine.loop import LoopConfig, Run

STAGES = ("space", "codec", "denoiser", "finish")
PREVIEW_STEPS = 25


@dataclass(frozen=True)
class Family:
    """What differs between families of picture decoders: their shards, sizes, schedules, and the space's own task."""

    name: str
    prefix: str
    space: Any
    codec: CodecConfig
    denoiser: DenoiserConfig
    schedules: dict[str, LoopConfig]
    defaults: dict[str, Any]  # of sampling, chosen on val

    def task(self, photos: Photos, val: Photos, seed: int) -> SpaceTask | FaceTask:
        """The training of the space."""
        kind = SpaceTask if self.name == "image" else FaceTask
        return kind(photos, val, self.space, seed)


FAMILIES = {
    "image": Family(
        "image",
        "images",
        SpaceConfig(),
        CodecConfig(),
        DenoiserConfig(),
        {
            "space": LoopConfig(1200, 256, 2e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=150),
            "codec": LoopConfig(4000, 16, 2e-3, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
            "denoiser": LoopConfig(4500, 128, 8e-4, weight_decay=0.01, ema=0.9985, warmup=200, validate_steps=250),
            "finish": LoopConfig(0, 16, 8e-4, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
        },
        {"steps": 16, "guidance": 3.0},
    ),
    "face": Family(
        "face",
        "faces",
        FaceConfig(),
        CodecConfig(patch=12, width=288, latent_channels=24, latent_noise=0.25),
        DenoiserConfig(channels=(96, 160)),
        {
            "space": LoopConfig(800, 96, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=200),
            "codec": LoopConfig(1500, 16, 2e-3, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
            "denoiser": LoopConfig(1600, 128, 1e-3, weight_decay=0.01, ema=0.998, warmup=150, validate_steps=400),
            "finish": LoopConfig(1500, 16, 8e-4, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
        },
        {"steps": 1, "guidance": 1.0},
    ),
}


@dataclass
class DecoderRecipe:
    """Everything `mmx train-decoder` was asked for. teacher: a trained decoder's teacher folder, to stay in its space."""

    data: Path
    run: Path
    family: Family
    seed: int = 0
    device: str = "cpu"
    steps: dict[str, int] | None = None
    teacher: Path | None = None
    quiet: bool = False
    command: str = ""
    notes: str = ""

    def schedule(self, stage: str) -> LoopConfig:
        """The stage's schedule with the recipe's seed, device and number of steps."""
        usual = self.family.schedules[stage]
        steps = (self.steps or {}).get(stage, usual.max_steps)
        return replace(
            usual, max_steps=steps, warmup=min(usual.warmup, steps // 10), seed=self.seed, device=self.device
        )


def train_space(recipe: DecoderRecipe, photos: Photos, val: Photos) -> Teacher | FaceTeacher:
    """Stage 1: the space, and with it the teacher."""
    task = recipe.family.task(photos, val, recipe.seed)
    run = Run(task, recipe.schedule("space"), recipe.run / "space")
    run.fit(quiet=recipe.quiet)
    module = run.averaged()
    return Teacher(module.space, task.tokenizer) if isinstance(task, SpaceTask) else FaceTeacher(module.encoder)


def train_codec(recipe: DecoderRecipe, photos: Photos, val: Photos, teacher):
    """Stage 2: the autoencoder, whitened. Returns it with the latents (2N, C, h, w) of `photos`."""
    run = Run(
        CodecTask(photos, val, teacher.net, recipe.family.codec, recipe.seed),
        recipe.schedule("codec"),
        recipe.run / "codec",
    )
    run.fit(quiet=recipe.quiet)
    codec = run.averaged()
    return codec, whiten_latents(codec, encode_all(photos, lambda pixels: codec.encode(pixels).latents))


def _pipeline(unet, codec):
    from diffusers import KandinskyV22Pipeline

    pipeline = KandinskyV22Pipeline(unet=unet, scheduler=build_scheduler(), movq=codec)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _Preview:
    """Pictures through the pipeline as it will be shipped, while the UNet still trains."""

    def __init__(self, codec, latents: Tensor) -> None:
        self.movq, self.side = codec, latents.shape[-1]

    def __call__(self, unet, embeds: Tensor, null: Tensor, guidance: float, generators: list[torch.Generator]) -> list:
        pipeline = _pipeline(unet, self.movq)
        size = self.side * pipeline.movq_scale_factor
        output = pipeline(
            image_embeds=embeds,
            negative_image_embeds=null.expand(len(embeds), -1),
            height=size,
            width=size,
            num_inference_steps=PREVIEW_STEPS,
            guidance_scale=guidance,
            generator=generators,
            output_type="pt",
        ).images
        return to_images(output)


def train_denoiser(
    recipe: DecoderRecipe, pairs: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], null: Tensor, codec
):
    """Stage 3: the diffusion UNet. pairs, val: latents (N, C, h, w) and embeddings (N, D)."""
    task = DenoiserTask(*pairs, val, null, _Preview(codec, pairs[0]), recipe.family.denoiser, recipe.seed)
    run = Run(task, recipe.schedule("denoiser"), recipe.run / "denoiser")
    run.fit(quiet=recipe.quiet)
    return run.averaged()


def finish_codec(
    recipe: DecoderRecipe,
    photos: Photos,
    val: Photos,
    teacher,
    codec,
    unet,
    pairs: tuple[Tensor, Tensor],
    val_embeds: Tensor,
):
    """Stage 4: the codec's decoder, on the denoiser's first guesses; left out where its schedule has no steps."""
    if recipe.schedule("finish").max_steps == 0:
        return codec
    count = len(photos)
    latents, embeds = pairs[0][:count], pairs[1][:count]  # the mirrored half has no photos of its own
    guesses = first_guesses(unet, embeds, latents, recipe.seed)
    val_guesses = first_guesses(unet, val_embeds[: len(val)], latents, recipe.seed + 1)
    task = FinishTask(photos, val, teacher.net, codec, (latents, guesses), val_guesses, recipe.seed)
    run = Run(task, recipe.schedule("finish"), recipe.run / "finish")
    run.fit(quiet=recipe.quiet)
    return run.averaged()


def train_decoder(recipe: DecoderRecipe) -> ImageDecoder:
    """All stages; the result is the folder `run/decoder`, with its card. The same recipe on the same run resumes."""
    family = recipe.family
    everything = load_photos(recipe.data, family.space.image_size, family.prefix)
    photos, val = everything.split("train"), everything.split("val")
    kind = TEACHERS[family.name]
    teacher = kind.load(recipe.teacher) if recipe.teacher else train_space(recipe, photos, val)
    codec, latents = train_codec(recipe, photos, val, teacher)
    embed: Callable[[Tensor], Tensor] = teacher.net.encode_image
    with torch.no_grad():
        val_pairs = (encode_all(val, lambda pixels: codec.encode(pixels).latents), encode_all(val, embed))
        null = embed(torch.full((1, 3, family.space.image_size, family.space.image_size), -1.0))
    pairs = (latents.half(), encode_all(photos, embed).half())
    unet = train_denoiser(recipe, pairs, val_pairs, null, codec)
    codec = finish_codec(recipe, photos, val, teacher, codec, unet, pairs, val_pairs[1])
    folder = recipe.run / "decoder"
    save_image_decoder(
        folder,
        _pipeline(unet, codec),
        teacher,
        name=f"starter-{family.name}/embedding",
        mean_norm=teacher.net.dim**0.5,
        defaults=family.defaults | {"size": family.space.image_size},
        teacher_folder=recipe.teacher,
    )
    measured = {
        "command": recipe.command,
        "notes": recipe.notes,
        "seed": recipe.seed,
        "photos": len(photos),
        "val": {stage: last_metrics(recipe.run / stage) for stage in STAGES},
    }
    (folder / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (folder / "README.md").write_text(decoder_card(family.name, measured), encoding="utf8")
    seal(folder)
    return ImageDecoder.load(folder)


def last_metrics(run: Path) -> dict[str, float]:
    """What a stage measured on val last; nothing where it was not trained here."""
    found = states(run)
    return json.loads((found[-1] / "state.json").read_text(encoding="utf8"))["metrics"] if found else {}
