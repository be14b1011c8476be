"""Losses by name. Each is tested against a plain NumPy twin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LOGIT_SCALE = 100.0  # CLIP clips the learned temperature at 1/100


def _soft_cross_entropy(logits: Tensor, weights: Tensor, smoothing: float, hard: int) -> Tensor:
    """Mean over rows of the cross-entropy with `weights`, which sum to one a row. logits, weights: (B, M)."""
    if hard:
        negatives = logits.masked_fill(weights > 0, float("-inf"))
        kth = negatives.topk(min(hard, logits.shape[1]), dim=1).values[:, -1:]
        logits = torch.where((weights > 0) | (logits >= kth), logits, float("-inf"))
    log_shares = logits.log_softmax(1)
    possible = logits > float("-inf")
    uniform = possible / possible.sum(1, keepdim=True)
    wanted = (1 - smoothing) * weights + smoothing * uniform
    return -(wanted * log_shares.masked_fill(~possible, 0.0)).sum(1).mean()


def _symmetric(logits: Tensor, positives: Tensor | None, smoothing: float, hard: int) -> Tensor:
    """Cross-entropy over rows and over columns of (B, M) logits, averaged.

    positives: (B, M) weights, which pairs belong together; the diagonal when absent. A row with several positives is
    given the distribution over them, so that two photos of one class are never pushed apart.
    """
    if positives is None:
        positives = torch.eye(len(logits), device=logits.device)
    weights = positives.to(logits.dtype)
    sides = ((logits, weights), (logits.T, weights.T))
    return sum(_soft_cross_entropy(x, w / w.sum(1, keepdim=True), smoothing, hard) for x, w in sides) / 2


def infonce(
    student: Tensor,
    teacher: Tensor,
    *,
    scale: Tensor | float = 1.0,
    positives: Tensor | None = None,
    smoothing: float = 0.0,
    hard: int = 0,
) -> Tensor:
    """Symmetric InfoNCE on cosine similarity (CLIP, Radford et al. 2021).

    student (B, D), teacher (M, D), any norm; scale: 1 / temperature; positives (B, M). smoothing: share of the target
    spread over all;
    hard: only the so many hardest negatives of each row count (0: all).
    """
    scale = torch.as_tensor(scale).clamp(max=MAX_LOGIT_SCALE)
    logits = F.normalize(student.float(), dim=-1) @ F.normalize(teacher.float(), dim=-1).T * scale
    return _symmetric(logits, positives, smoothing, hard)


def infonce_l2(
    student: Tensor,
    teacher: Tensor,
    *,
    scale: Tensor | float = 1.0,
    positives: Tensor | None = None,
    smoothing: float = 0.0,
    hard: int = 0,
) -> Tensor:
    """Sound2Scene's loss (Sung-Bin et al. 2023, eq.

    2): symmetric cross-entropy over minus the L2 distance of unit vectors.
    """
    cosine = F.normalize(student.float(), dim=-1) @ F.normalize(teacher.float(), dim=-1).T
    # |x - y|^2 = 2 - 2 cos; the floor keeps the root's gradient finite where two vectors agree
    distance = (2 - 2 * cosine).clamp(min=1e-8).sqrt()
    return _symmetric(-distance * scale, positives, smoothing, hard)


def _over_positives(distances: Tensor, positives: Tensor | None) -> Tensor:
    """Mean of distances (B, M) over the pairs that belong together, each row counting once."""
    if positives is None:
        return distances.diagonal().mean()
    weights = positives.to(distances.dtype)
    return (distances * weights / weights.sum(1, keepdim=True)).sum(1).mean()


def cosine(
    student: Tensor,
    teacher: Tensor,
    *,
    scale: Tensor | float = 1.0,
    positives: Tensor | None = None,
    smoothing: float = 0.0,
    hard: int = 0,
) -> Tensor:
    """One minus the cosine to the targets that belong to each row.

    It has no negatives: scale, smoothing and hard mean nothing.
    """
    return _over_positives(1 - F.normalize(student.float(), dim=-1) @ F.normalize(teacher.float(), dim=-1).T, positives)


def mse(
    student: Tensor,
    teacher: Tensor,
    *,
    scale: Tensor | float = 1.0,
    positives: Tensor | None = None,
    smoothing: float = 0.0,
    hard: int = 0,
) -> Tensor:
    """Mean squared error a coordinate, at the norms that both have. No negatives, as in `cosine`."""
    return _over_positives(torch.cdist(student.float(), teacher.float()).square() / student.shape[1], positives)


LOSSES = {"infonce": infonce, "infonce-l2": infonce_l2, "mse": mse, "cosine": cosine}


class Comparison:
    """Where a student and its targets are compared: as raw embeddings, the student at the targets' mean norm, and with
    statistics in coordinates in which the targets have mean zero and variance one. Embeddings of one kind of thing
    share a large part, which tells nothing apart and fills the cosine.
    """

    def __init__(self, norm: float, statistics: tuple[Tensor, Tensor] | None = None) -> None:
        self.norm, self.statistics = norm, statistics

    def __call__(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """student (B, D), any norm, and raw teacher embeddings (M, D) → both to be compared."""
        both = F.normalize(student.float(), dim=-1) * self.norm, teacher.float()
        if self.statistics is None:
            return both
        mean, std = (x.to(student.device) for x in self.statistics)
        return (both[0] - mean) / std, (both[1] - mean) / std


def nt_xent(views: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss (Chen et al. 2020, eq. 1): each of two views finds the other among all others of the batch.

    views: (2B, D) unit vectors; item i and item B + i are views of the same thing.
    """
    count = len(views)
    scores = views @ views.T / temperature
    scores = scores.masked_fill(torch.eye(count, dtype=torch.bool, device=views.device), float("-inf"))
    partner = torch.arange(count, device=views.device).roll(count // 2)
    return F.cross_entropy(scores.float(), partner)


def distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy of softened answers (Hinton et al. 2015), a value for each row: logits (B, K) → (B,)."""
    wanted = (teacher.float() / temperature).softmax(-1)
    return -(wanted * (student.float() / temperature).log_softmax(-1)).sum(-1)


def speech2face(
    student: Tensor,
    teacher: Tensor,
    *,
    first: tuple[Tensor, Tensor],
    answers: tuple[Tensor, Tensor],
    weights: tuple[float, float, float] = (1.0, 10.0, 1.0),
    temperature: float = 2.0,
) -> Tensor:
    """The three terms of Speech2Face (Oh et al., CVPR 2019, eq. 1-2), each summed over a row's units or classes.

    student, teacher: features (B, D). first: the decoder's first layer on both (B, N); its L1 distance is a mean over
    N, so that its weight does not depend on the layer's width. answers: the recogniser's last layer on both (B, K),
    compared by `distillation`.
    weights: of the L1 term, of the squared distance of unit features (λ1), of the distillation (λ2). The paper's 1,
    0.025 and 200 belong to its 4096-d features; the defaults bring the terms to the same order at our sizes.
    """
    layer = (first[0] - first[1]).abs().mean(-1)
    distance = (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1)
    return (
        weights[0] * layer + weights[1] * distance + weights[2] * distillation(answers[0], answers[1], temperature)
    ).mean()
