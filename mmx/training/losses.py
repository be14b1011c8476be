"""Losses by name. Each is tested against a plain NumPy twin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LOGIT_SCALE = 100.0  # CLIP clips the learned temperature at 1/100


def _symmetric(logits: Tensor, positives: Tensor | None) -> Tensor:
    """Cross-entropy over rows and over columns of (B, B) logits, averaged.

    positives: (B, B) bool, which pairs belong together; the diagonal when absent. A row with several positives is
    given the uniform distribution over them, so that two photos of one class are never pushed apart.
    """
    if positives is None:
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    weights = positives.to(logits.dtype)
    rows, columns = weights / weights.sum(1, keepdim=True), weights / weights.sum(0, keepdim=True)
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, columns.T)) / 2


def infonce(a: Tensor, b: Tensor, *, scale: Tensor | float, positives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE on cosine similarity (CLIP, Radford et al. 2021). a, b: (B, D), any norm; scale: 1/temperature."""
    scale = torch.as_tensor(scale).clamp(max=MAX_LOGIT_SCALE)
    return _symmetric(F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T * scale, positives)


def infonce_l2(a: Tensor, b: Tensor, *, scale: Tensor | float = 1.0, positives: Tensor | None = None) -> Tensor:
    """Sound2Scene's loss (Sung-Bin et al. 2023, eq. 2): symmetric cross-entropy over minus the L2 distance of unit vectors."""
    cosine = F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T
    # |x - y|^2 = 2 - 2 cos; the floor keeps the root's gradient finite where two vectors agree
    distance = (2 - 2 * cosine).clamp(min=1e-8).sqrt()
    return _symmetric(-distance * scale, positives)
