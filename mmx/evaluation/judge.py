"""A classifier that only judges: it names what a picture shows, and no training ever sees it.

It is a small CNN trained on the data's own photos, or a small head on what a larger frozen network sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.device import device_of
from mmx.errors import InputError, UsageError
from mmx.evaluation.metrics import top_accuracy
from mmx.media.image import fit_square
from mmx.recipes.base import Measuring
from mmx.training.decoders.space import random_crops, to_pixels
from mmx.training.decoders.stages import data_digest
from mmx.training.engine.loop import LoopConfig, Run
from mmx.training.teachers.efficientnet import POOLED, load_efficientnet
from mmx.training.teachers.features import SIDE as EYES_SIDE
from mmx.training.teachers.features import kept, pooled

NETWORKS = ("cnn", "efficientnet-lite2")  # lite0 teaches image decoders, so it can't judge them

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


class JudgeHead(nn.Module):
    """One hidden layer on a frozen network's pooled features: (B, 1280) → logits (B, K)."""

    def __init__(self, classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.LayerNorm(POOLED), nn.Dropout(0.5), nn.Linear(POOLED, hidden), nn.ReLU())
        self.out = nn.Linear(hidden, classes)

    def features(self, seen: Tensor) -> Tensor:
        """Of the hidden layer (B, 256)."""
        return self.hidden(seen)

    def forward(self, seen: Tensor) -> Tensor:
        return self.out(self.features(seen))


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
        self.module = self.build(len(labels))
        truth = torch.tensor([self.labels.index(m[key]) if m.get(key) in self.labels else -1 for m in photos.meta])
        self.members = [(truth == k).nonzero()[:, 0] for k in range(len(labels))]
        lacking = next((label for label, own in zip(labels, self.members, strict=True) if not len(own)), None)
        if lacking is not None:
            raise InputError(f"the train split has no photo of {lacking}, which a judge has to learn")

    def build(self, classes: int) -> nn.Module:
        """The network that learns."""
        return JudgeNet(classes).to(memory_format=torch.channels_last)

    def inputs(self, picks: Tensor, generator: torch.Generator) -> Tensor:
        """What a batch holds of these train photos (B,)."""
        return self.photos.pixels[picks]

    def augmented(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """What the network is shown of a batch."""
        return random_crops(to_pixels(inputs), generator)

    def of_val(self, keep: Sequence[int], device: torch.device | str) -> Tensor:
        """What the network is shown of these val photos."""
        return to_pixels(self.val.pixels[list(keep)], device)

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        labels = torch.randint(len(self.labels), (size,), generator=generator)
        places = torch.rand(size, generator=generator)
        picks = torch.stack(
            [
                self.members[k][int(p * len(self.members[k]))]
                for k, p in zip(labels.tolist(), places.tolist(), strict=True)
            ]
        )
        return {"inputs": self.inputs(picks, generator), "labels": labels}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        logits = self.module(self.augmented(batch["inputs"], generator))
        return F.cross_entropy(logits.float(), batch["labels"], label_smoothing=0.1), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        keep = [i for i, meta in enumerate(self.val.meta) if meta.get(self.key) in self.labels]
        truth = torch.tensor([self.labels.index(self.val.meta[i][self.key]) for i in keep])
        return top_accuracy(module(self.of_val(keep, device_of(module))).cpu(), truth)

    def preview(self, module: nn.Module, path: Path) -> None:
        """A judge has nothing to show."""


class SeenJudgeTask(JudgeTask):
    """The same on what a frozen network sees.

    seen: of the train photos, plain and mirrored (N, 2, 1280), and of the val photos (M, 2, 1280).
    """

    def __init__(
        self, photos: Photos, val: Photos, labels: Sequence[str], key: str, seen: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__(photos, val, labels, key)
        self.seen = seen

    def build(self, classes: int) -> nn.Module:
        return JudgeHead(classes)

    def inputs(self, picks: Tensor, generator: torch.Generator) -> Tensor:
        return self.seen[0][picks, torch.randint(2, (len(picks),), generator=generator)].float()

    def augmented(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs

    def of_val(self, keep: Sequence[int], device: torch.device | str) -> Tensor:
        return self.seen[1][list(keep), 0].float().to(device)


class Judge:
    """A trained judge.

    look: pictures (B, 64, 64, 3) uint8 and a device → what the network is shown. name: of NETWORKS.
    """

    def __init__(
        self, net: nn.Module, look: Callable[[Tensor, torch.device], Tensor] = to_pixels, name: str = NETWORKS[0]
    ) -> None:
        self.net, self.look, self.name = net.eval().requires_grad_(False), look, name

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Pictures → logits (N, K) and features (N, C), on the CPU."""
        pixels = torch.from_numpy(np.stack([np.asarray(fit_square(picture, SIDE)) for picture in pictures]))
        device = device_of(self.net)
        features = torch.cat([self.net.features(self.look(part, device)) for part in pixels.split(256)])
        return self.net.out(features).cpu(), features.cpu()


def judge_for(
    photos: Photos, labels: Sequence[str], options: Measuring, key: str = "concept", device: torch.device | str = "cpu"
) -> Judge:
    """The judge that a protocol was asked for; raises what `train_judge` does."""
    assert options.judge is not None, "the command says where it is kept"
    return train_judge(
        photos,
        labels,
        options.judge,
        key=key,
        network=options.judge_network,
        max_steps=options.judge_steps,
        device=str(device),
        quiet=options.quiet,
    )


def train_judge(
    photos: Photos,
    labels: Sequence[str],
    folder: Path,
    *,
    key: str = "concept",
    network: str = "cnn",
    max_steps: int = SCHEDULE.max_steps,
    device: str = "cpu",
    quiet: bool = False,
) -> Judge:
    """Train a judge on the train split into `folder`, or take the one that is there; the same call resumes.

    Raises InputError; ModelError where the network is not installed; UsageError for a network that is none of NETWORKS,
    and where the judge that is there was trained on other photos, for other labels or as another network.
    """
    if network not in NETWORKS:
        raise UsageError(f"--judge-network {network}: there is no such judge", hint=f"one of {', '.join(NETWORKS)}")
    photos = small(photos)
    split, look = (photos.split("train"), photos.split("val")), to_pixels
    if network == "cnn":
        task = JudgeTask(*split, labels, key)
    else:
        seen, look = _eyes(network, split, folder, device)
        task = SeenJudgeTask(*split, labels, key, seen)
    warmup = min(SCHEDULE.warmup, max_steps // 10 + 1)
    config = replace(SCHEDULE, max_steps=max_steps, warmup=warmup, device=device)
    identity = {"data": data_digest([photos.pixels], photos.meta), "labels": list(labels), "key": key}
    run = Run(task, config, folder, identity=identity | ({"network": network} if network != "cnn" else {}))
    run.fit(quiet=quiet)
    return Judge(run.averaged(), look, network)


def _eyes(
    network: str, split: tuple[Photos, Photos], folder: Path, device: str
) -> tuple[tuple[Tensor, Tensor], Callable[[Tensor, torch.device], Tensor]]:
    """What the frozen network sees of both splits, kept beside the judge; and how it looks at pictures."""
    net = load_efficientnet(network.removeprefix("efficientnet-")).to(device)

    def views(part: Tensor) -> Tensor:
        return torch.stack([pooled(net, part), pooled(net, part.flip(2))], 1)

    seen = [
        kept(photos, views, f"{network} {EYES_SIDE} mirrored", folder / "seen" / name)
        for name, photos in zip(("train", "val"), split, strict=True)
    ]
    return (seen[0], seen[1]), partial(_looked, net)


def _looked(net: nn.Module, part: Tensor, device: torch.device) -> Tensor:
    return pooled(net, part).float().to(device)
