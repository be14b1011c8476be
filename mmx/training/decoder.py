"""`mmx train-decoder`: the stages of a decoder, one after the other, each resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mmx.decoders.image import ImageDecoder, save_image_decoder
from mmx.decoders.teacher import Teacher
from mmx.training.data import Photos, load_photos
from mmx.training.image import (
    CodecConfig,
    CodecTask,
    DenoiserConfig,
    DenoiserTask,
    SpaceConfig,
    SpaceTask,
    build_scheduler,
    encode_all,
    to_images,
    whiten_latents,
)
from mmx.training.loop import LoopConfig, Run

STAGES = ("space", "codec", "denoiser")
DEFAULTS = {"steps": 25, "guidance": 2.0, "size": 64}

SCHEDULES = {
    "space": LoopConfig(
        max_steps=1200, batch_size=256, lr=2e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=150
    ),
    "codec": LoopConfig(
        max_steps=4000, batch_size=16, lr=1e-3, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500
    ),
    "denoiser": LoopConfig(
        max_steps=5000, batch_size=128, lr=8e-4, weight_decay=0.01, ema=0.9985, warmup=200, validate_steps=250
    ),
}


@dataclass
class ImageRecipe:
    """Everything `mmx train-decoder image` was asked for."""

    data: Path
    run: Path
    seed: int = 0
    device: str = "cpu"
    steps: dict[str, int] | None = None
    space: SpaceConfig = SpaceConfig()
    codec: CodecConfig = CodecConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    quiet: bool = False
    name: str = "starter-image/embedding"

    def schedule(self, stage: str) -> LoopConfig:
        """The stage's schedule with the recipe's seed, device and number of steps."""
        steps = (self.steps or {}).get(stage, SCHEDULES[stage].max_steps)
        return replace(
            SCHEDULES[stage],
            max_steps=steps,
            warmup=min(SCHEDULES[stage].warmup, steps // 10),
            seed=self.seed,
            device=self.device,
        )


def train_space(recipe: ImageRecipe, photos: Photos, val: Photos) -> Teacher:
    """Stage 1: the joint image-text space."""
    task = SpaceTask(photos, val, recipe.space, recipe.seed)
    run = Run(task, recipe.schedule("space"), recipe.run / "space")
    run.fit(quiet=recipe.quiet)
    return Teacher(run.averaged().space, task.tokenizer)


def train_codec(recipe: ImageRecipe, photos: Photos, val: Photos, teacher: Teacher):
    """Stage 2: the autoencoder, whitened. Returns it with the latents (2N, C, h, w) of `photos`."""
    run = Run(
        CodecTask(photos, val, teacher.net, recipe.codec, recipe.seed), recipe.schedule("codec"), recipe.run / "codec"
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

    def __init__(self, codec, size: int) -> None:
        self.movq, self.size = codec, size

    def __call__(self, unet, embeds: Tensor, null: Tensor, guidance: float, generators: list[torch.Generator]) -> list:
        output = _pipeline(unet, self.movq)(
            image_embeds=embeds,
            negative_image_embeds=null.expand(len(embeds), -1),
            height=self.size,
            width=self.size,
            num_inference_steps=DEFAULTS["steps"],
            guidance_scale=guidance,
            generator=generators,
            output_type="pt",
        ).images
        return to_images(output)


def train_denoiser(recipe: ImageRecipe, photos: Photos, val: Photos, teacher: Teacher, codec, latents: Tensor):
    """Stage 3: the diffusion UNet."""
    embed: Callable[[Tensor], Tensor] = teacher.net.encode_image
    with torch.no_grad():
        val_pairs = (encode_all(val, lambda pixels: codec.encode(pixels).latents), encode_all(val, embed))
        null = embed(torch.full((1, 3, recipe.space.image_size, recipe.space.image_size), -1.0))
    task = DenoiserTask(
        latents.half(),
        encode_all(photos, embed).half(),
        val_pairs,
        null,
        _Preview(codec, recipe.space.image_size),
        recipe.denoiser,
        recipe.seed,
    )
    run = Run(task, recipe.schedule("denoiser"), recipe.run / "denoiser")
    run.fit(quiet=recipe.quiet)
    return run.averaged()


def train_image_decoder(recipe: ImageRecipe) -> ImageDecoder:
    """All three stages; the result is the folder `run/decoder`. The same recipe on the same run resumes."""
    everything = load_photos(recipe.data, recipe.space.image_size)
    photos, val = everything.split("train"), everything.split("val")
    teacher = train_space(recipe, photos, val)
    codec, latents = train_codec(recipe, photos, val, teacher)
    unet = train_denoiser(recipe, photos, val, teacher, codec, latents)
    folder = recipe.run / "decoder"
    save_image_decoder(
        folder,
        _pipeline(unet, codec),
        teacher,
        name=recipe.name,
        mean_norm=recipe.space.dim**0.5,
        defaults=DEFAULTS | {"size": recipe.space.image_size},
    )
    return ImageDecoder.load(folder)
