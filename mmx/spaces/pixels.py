"""Pixels as tensors, fitted to what a network looks at: as pictures are prepared, but with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.decoders.teacher import Teacher
from mmx.device import threads_for


def resampled(pixels: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """(B, C, H, W) → (B, C, height, width), without aliasing where it gets smaller."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    return F.interpolate(pixels, size=(height, width), mode=mode, antialias=True, align_corners=False)


def centred(pixels: Tensor) -> Tensor:
    """(B, C, H, W) → the largest square in its middle (B, C, S, S)."""
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]


def teacher_sees(teacher: Teacher, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in [0, 1] → a starter teacher's raw embeddings (B, D), where it computes."""
    size = teacher.image_size
    ready = resampled(centred(pixels.to(teacher.device)), size, size) * 2 - 1
    with threads_for(teacher.net, items=len(pixels)):
        return teacher.net.encode_image(ready.contiguous(memory_format=torch.channels_last))


def prepared(pixels: Tensor, processor: Any, size: int) -> Tensor:
    """Pixels (B, 3, H, W) in [0, 1] → what a library's image processor makes of such pictures (B, 3, size, size)."""
    whole = centred(pixels) if getattr(processor, "do_center_crop", False) else pixels
    ready = resampled(whole, size, size, "bicubic").clamp(0, 1)
    mean, std = (torch.tensor(by).to(ready)[:, None, None] for by in (processor.image_mean, processor.image_std))
    return (ready - mean) / std
