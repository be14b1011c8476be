"""What an edit is not to change: the readings along some directions of the conditioning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.guided.invert import on_shell


def along(points: Tensor, hold: Tensor) -> Tensor:
    """The part of points (..., D) that lies along orthonormal directions (H, D)."""
    return (points @ hold.T) @ hold


def across(direction: Tensor, hold: Tensor) -> Tensor:
    """A direction (D,) less its projection on what is held, unit norm (InterFaceGAN's conditional manipulation, Shen et
    al. 2020)."""
    return F.normalize(direction - along(direction, hold), dim=-1)


def on_held_shell(point: Tensor, like: Tensor, hold: Tensor) -> Tensor:
    """A point (B, D) with the norm of another and with its part along the held directions (H, D): the nearest one in
    direction, since raw conditionings lie on a shell."""
    if not len(hold):
        return on_shell(point, like)
    kept = along(like, hold)
    rest = point - along(point, hold)
    norm = (like.square().sum(-1, keepdim=True) - kept.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
    return kept + rest * (norm / rest.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny))
