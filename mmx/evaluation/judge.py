"""A classifier that only judges: it names what a picture shows, and no training ever sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.device import device_of
from mmx.errors import InputError
from mmx.evaluation.metrics import top_accuracy
from mmx.media.image import fit_square
from mmx.training.decoders.space import random_crops, to_pixels
from mmx.training.decoders.stages import data_digest
from mmx.training.engine.loop import LoopConfig, Run

SCHEDULE = LoopConfig(
    max_steps=1500, batch_size=128, lr=2e-3, weight_decay=0.05, ema=0.997, warmup=100, seed=1234, validate_steps=250
)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.skip = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 or inputs != outputs else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class JudgeNet(nn.Module):
    """A pre-activation residual CNN (He et al. 2016) of another build than the teacher's.

    Pixels (B, 3, 64, 64) → logits (B, K).
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.num_features = widths[-1]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, 2, padding=2, bias=False)]
        for before, width in zip((widths[0], *widths), widths, strict=False):
            layers += [_Residual(before, width, 1 if width == widths[0] else 2), _Residual(width, width, 1)]
        self.trunk = nn.Sequential(*layers, nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.out = nn.Linear(widths[-1], classes)

    def features(self, pixels: Tensor) -> Tensor:
        """Pooled features (B, C)."""
        return self.trunk(pixels).mean((2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.out(self.features(pixels))


SIDE = 64  # pixels: what a judge looks at, whatever the size of the photos and pictures


def small(photos: Photos) -> Photos:
    """The photos at the judge's size."""
    if photos.pixels.shape[1] == SIDE:
        return photos
    parts = [
        F.interpolate(part.permute(0, 3, 1, 2).float(), size=(SIDE, SIDE), mode="bilinear", antialias=True)
        for part in photos.pixels.split(1024)
    ]
    pixels = torch.cat([part.round().clamp(0, 255).byte().permute(0, 2, 3, 1) for part in parts])
    return Photos(pixels, photos.meta)


class JudgeTask:
    """Cross-entropy over the values of one key of the metadata, such as the concept, drawn equally often."""

    name = "judge"
    lower_is_better = ()

    def __init__(self, photos: Photos, val: Photos, labels: Sequence[str], key: str, seed: int = 1234) -> None:
        self.photos, self.val, self.labels, self.key = photos, val, list(labels), key
        torch.manual_seed(seed)
        self.module = JudgeNet(len(labels)).to(memory_format=torch.channels_last)
        truth = torch.tensor([self.labels.index(m[key]) if m.get(key) in self.labels else -1 for m in photos.meta])
        self.members = [(truth == k).nonzero()[:, 0] for k in range(len(labels))]
        lacking = next((label for label, own in zip(labels, self.members, strict=True) if not len(own)), None)
        if lacking is not None:
            raise InputError(f"the train split has no photo of {lacking}, which a judge has to learn")

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        labels = torch.randint(len(self.labels), (size,), generator=generator)
        places = torch.rand(size, generator=generator)
        picks = torch.stack(
            [
                self.members[k][int(p * len(self.members[k]))]
                for k, p in zip(labels.tolist(), places.tolist(), strict=True)
            ]
        )
        return {"images": self.photos.pixels[picks], "labels": labels}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        logits = self.module(random_crops(to_pixels(batch["images"]), generator))
        return F.cross_entropy(logits.float(), batch["labels"], label_smoothing=0.1), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        keep = [i for i, meta in enumerate(self.val.meta) if meta.get(self.key) in self.labels]
        truth = torch.tensor([self.labels.index(self.val.meta[i][self.key]) for i in keep])
        return top_accuracy(module(to_pixels(self.val.pixels[keep], device_of(module))).cpu(), truth)

    def preview(self, module: nn.Module, path: Path) -> None:
        """A judge has nothing to show."""


class Judge:
    """A trained judge."""

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Pictures → logits (N, K) and features (N, C), on the CPU."""
        pixels = torch.from_numpy(np.stack([np.asarray(fit_square(picture, SIDE)) for picture in pictures]))
        device = device_of(self.net)
        features = torch.cat([self.net.features(to_pixels(part, device)) for part in pixels.split(256)])
        return self.net.out(features).cpu(), features.cpu()


def train_judge(
    photos: Photos,
    labels: Sequence[str],
    folder: Path,
    *,
    key: str = "concept",
    max_steps: int = SCHEDULE.max_steps,
    device: str = "cpu",
    quiet: bool = False,
) -> Judge:
    """Train a judge on the train split into `folder`, or take the one that is there; the same call resumes.

    Raises InputError; UsageError where the one that is there was trained on other photos or for other labels.
    """
    photos = small(photos)
    task = JudgeTask(photos.split("train"), photos.split("val"), labels, key)
    warmup = min(SCHEDULE.warmup, max_steps // 10 + 1)
    config = replace(SCHEDULE, max_steps=max_steps, warmup=warmup, device=device)
    identity = {"data": data_digest([photos.pixels], photos.meta), "labels": list(labels), "key": key}
    run = Run(task, config, folder, identity=identity)
    run.fit(quiet=quiet)
    return Judge(run.averaged())
