"""`mmx train-decoder image` and `face`: the stages of a decoder, one after the other, each resumable."""

from __future__ import annotations

import json
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
from mmx.training.decoders.stages import Stages, data_digest, teacher_digest
from mmx.training.engine.loop import LoopConfig

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
        prefix="images",
        space=SpaceConfig(),
        codec=CodecConfig(),
        denoiser=DenoiserConfig(),
        schedules={
            "space": LoopConfig(1200, 256, 2e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=150),
            "codec": LoopConfig(4000, 16, 2e-3, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
            "denoiser": LoopConfig(4500, 128, 8e-4, weight_decay=0.01, ema=0.9985, warmup=200, validate_steps=250),
            "finish": LoopConfig(0, 16, 8e-4, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
        },
        defaults={"steps": 16, "guidance": 3.0},
    ),
    "face": Family(
        "face",
        prefix="faces",
        space=FaceConfig(),
        codec=CodecConfig(patch=12, width=288, latent_channels=24, latent_noise=0.25),
        denoiser=DenoiserConfig(channels=(96, 160)),
        schedules={
            "space": LoopConfig(800, 96, 1.5e-3, weight_decay=0.05, ema=0.998, warmup=100, validate_steps=200),
            "codec": LoopConfig(1500, 16, 2e-3, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
            "denoiser": LoopConfig(1600, 128, 1e-3, weight_decay=0.01, ema=0.998, warmup=150, validate_steps=400),
            "finish": LoopConfig(1500, 16, 8e-4, weight_decay=0.0, ema=0.998, warmup=100, validate_steps=500),
        },
        defaults={"steps": 1, "guidance": 1.0},
    ),
}


@dataclass
class DecoderRecipe:
    """Everything `mmx train-decoder` was asked for. teacher: a trained decoder's teacher folder, to stay in
    its space.
    """

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


def train_space(recipe: DecoderRecipe, stages: Stages, photos: Photos, val: Photos) -> Teacher | FaceTeacher:
    """Stage 1: the space, and with it the teacher."""
    task = recipe.family.task(photos, val, recipe.seed)
    module = stages.train(task)
    return Teacher(module.space, task.reader) if isinstance(task, SpaceTask) else FaceTeacher(module.encoder)


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


@dataclass(frozen=True)
class _Encoded:
    """What the codec and the teacher make of the photos, on the CPU.

    Pairs are latents (N, C, h, w) and embeddings (N, D).
    """

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    null: Tensor  # (1, D), of a black picture

    @classmethod
    @torch.no_grad()
    def by(cls, codec: Any, teacher: Any, photos: Photos, val: Photos, device: str) -> _Encoded:
        """Whitens the codec, too."""
        latents_of = lambda pixels: codec.encode(pixels).latents  # noqa: E731
        latents = whiten_latents(codec, encode_all(photos, latents_of, device))
        embed = teacher.net.encode_image
        black = torch.full((1, 3, teacher.net.image_size, teacher.net.image_size), -1.0, device=device)
        return cls(
            (latents.half(), encode_all(photos, embed, device).half()),
            (encode_all(val, latents_of, device), encode_all(val, embed, device)),
            embed(black).cpu(),
        )


def finish_codec(
    recipe: DecoderRecipe, stages: Stages, splits: tuple[Photos, Photos], parts: tuple[Any, Any, Any], data: _Encoded
) -> Any:
    """Stage 4: the codec's decoder, on the denoiser's first guesses; left out where its schedule has no steps.

    splits: photos and val; parts: teacher, codec and denoiser.
    """
    (photos, val), (teacher, codec, unet) = splits, parts
    if recipe.schedule("finish").max_steps == 0:
        return codec
    latents, embeds = (x[: len(photos)] for x in data.train)  # the mirrored half has no photos of its own
    guesses = first_guesses(unet, embeds, latents, recipe.seed)
    val_guesses = first_guesses(unet, data.val[1][: len(val)], latents, recipe.seed + 1)
    return stages.train(
        FinishTask(photos, val, teacher.net, codec, pairs=(latents, guesses), val_guesses=val_guesses, seed=recipe.seed)
    )


def train_decoder(recipe: DecoderRecipe) -> ImageDecoder:
    """All stages; the result is the folder `run/decoder`, with its card. The same recipe on the same run resumes."""
    family = recipe.family
    everything = load_photos(recipe.data, family.space.image_size, family.prefix)
    photos, val = everything.split("train"), everything.split("val")
    data = data_digest([everything.pixels], everything.meta)
    stages = Stages(recipe, {"family": family.name, "data": data, "teacher": teacher_digest(recipe.teacher)})
    kind = TEACHERS[family.name]
    teacher = kind.load(recipe.teacher) if recipe.teacher else train_space(recipe, stages, photos, val)
    teacher.net.to(recipe.device)
    codec = stages.train(CodecTask(photos, val, teacher.net, family.codec, recipe.seed))
    encoded = _Encoded.by(codec, teacher, photos, val, recipe.device)
    preview = _Preview(codec, encoded.train[0])
    unet = stages.train(
        DenoiserTask(
            *encoded.train, encoded.val, encoded.null, decoder=preview, config=family.denoiser, seed=recipe.seed
        )
    )
    codec = finish_codec(recipe, stages, (photos, val), (teacher, codec, unet), encoded)
    teacher.net.cpu()
    save_image_decoder(
        recipe.run / "decoder",
        _pipeline(unet.cpu(), codec.cpu()),
        teacher,
        name=f"starter-{family.name}/embedding",
        mean_norm=teacher.net.dim**0.5,
        defaults=family.defaults | {"size": family.space.image_size},
        teacher_folder=recipe.teacher,
    )
    return _carded(recipe, len(photos), stages)


def _carded(recipe: DecoderRecipe, count: int, stages: Stages) -> ImageDecoder:
    """The decoder's folder with its numbers and its card, sealed."""
    folder = recipe.run / "decoder"
    measured = {
        "command": recipe.command,
        "notes": recipe.notes,
        "seed": recipe.seed,
        "photos": count,
        "val": stages.metrics(STAGES),
    }
    (folder / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (folder / "README.md").write_text(decoder_card(recipe.family.name, measured), encoding="utf8")
    seal(folder)
    return ImageDecoder.load(folder)
