"""What frozen networks see in photos, computed once and kept in the run's folder, piece by piece."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.data.photos import Photos
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.teacher import Teacher
from mmx.device import autocast
from mmx.training.decoders.space import to_pixels
from mmx.training.engine.identity import weights_digest
from mmx.training.teachers.efficientnet import EfficientNet

NAME = "efficientnet-lite0 128"
SIDE = 128  # pixels: photos of 64 are seen best at twice their size
PIECE, BATCH = 1024, 16  # photos a file, photos at a time


def resized(pixels: Tensor, side: int) -> Tensor:
    """(B, 3, S, S) → (B, 3, side, side), channels last in memory."""
    x = F.interpolate(pixels, size=(side, side), mode="bilinear")
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def features_of(net: EfficientNet, pixels: Tensor, side: int = SIDE) -> Tensor:
    """A few pixels (B, 3, S, S) in [-1, 1], where the network is → pooled features (B, 1280)."""
    return net.pool(net.taps(resized(pixels, side))[-1])


def glimpsed(net: EfficientNet, pixels: Tensor, side: int = SIDE) -> Tensor:
    """As `features_of`, of any number of pictures, in bfloat16 where that pays."""
    with autocast(pixels.device):
        return torch.cat([features_of(net, part, side) for part in pixels.split(BATCH)])


def pooled(net: EfficientNet, photos: Tensor, side: int = SIDE) -> Tensor:
    """Photos (N, S, S, 3) uint8 → pooled features (N, 1280), float16."""
    device = net.head.conv.weight.device
    parts = (to_pixels(part).to(device) for part in photos.split(BATCH))
    return torch.cat([features_of(net, part, side).half().cpu() for part in parts])


def embeds_of(photos: Photos, teacher: Teacher | FaceTeacher, folder: Path) -> Tensor:
    """The teacher's raw embeddings of all photos, plain and mirrored (N, 2, D), on the CPU; kept in `folder`."""

    @torch.no_grad()
    def look(part: Tensor) -> Tensor:
        return torch.cat([_both_ways(teacher, to_pixels(some, teacher.device)) for some in part.split(PIECE // 4)])

    return kept(photos, look, weights_digest(teacher.net), folder)


def _both_ways(teacher: Teacher | FaceTeacher, pixels: Tensor) -> Tensor:
    return torch.stack([teacher.net.encode_image(x).cpu() for x in (pixels, pixels.flip(3))], 1)


def digest_of(photos: Tensor) -> str:
    """sha256 of photos (N, S, S, 3) uint8."""
    return hashlib.sha256(photos.numpy().tobytes()).hexdigest()


def kept(photos: Photos, look: Callable[[Tensor], Tensor], by: str, folder: Path) -> Tensor:
    """What `look` makes of photos (n, S, S, 3) uint8, of all of them (N, ...): what `folder` holds of these very photos
    is read, the rest computed and written there. by: who looks; what another one saw is computed anew.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for start in range(0, len(photos), PIECE):
        part, path = photos.pixels[start : start + PIECE], folder / f"{start:06d}.safetensors"
        about, seen = {"photos": digest_of(part), "by": by}, None
        if path.exists():
            with safe_open(path, "pt") as file:
                seen = file.get_tensor("seen") if file.metadata() == about else None
        if seen is None:
            seen = look(part)
            scratch = path.with_suffix(f".{os.getpid()}")
            save_file({"seen": seen.contiguous()}, scratch, about)
            scratch.replace(path)
        found.append(seen)
    return torch.cat(found)
