"""What an embedding's two parts mean, where they are not learned: directions in a frozen teacher's features, and in
colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINKAGE = 0.05  # of the covariance within classes toward its mean variance
POWER = 0.25  # a direction of variance v is divided by v^POWER: 0 leaves its weight, 0.5 makes all equal


@dataclass
class Axes:
    """An affine map. mean: (F,), matrix: (F, D)."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(N, F) → (N, D)."""
        return (features.float() - self.mean) @ self.matrix

    def toward(self, features: Tensor, known: Tensor) -> Axes:
        """These axes turned so that what they make of features (N, F) lies nearest to known vectors (N, D), each at
        norm 1: the orthogonal Procrustes problem (Schoenemann 1966). Axes are found but for their signs.
        """
        own = F.normalize(self(features), dim=1)
        left, _, right = torch.linalg.svd(own.double().T @ F.normalize(known, dim=1).double())
        return Axes(self.mean, self.matrix @ (left @ right).float())


def discriminants(features: Tensor, labels: Tensor, dim: int) -> Axes:
    """The `dim` directions that tell labels (N,) apart best in features (N, F): linear discriminants (Fisher 1936),
    tempered by POWER.
    """
    x, classes = features.double(), labels.unique()
    means = torch.stack([x[labels == k].mean(0) for k in classes])
    mean = x.mean(0)
    within = torch.cov((x - means[torch.searchsorted(classes, labels)]).T)
    within += SHRINKAGE * within.diagonal().mean() * torch.eye(len(within), dtype=within.dtype)
    white = torch.linalg.cholesky(torch.linalg.inv(within))  # whitens what classes share
    values, vectors = torch.linalg.eigh(torch.cov(((x - mean) @ white).T))
    values, vectors = values.flip(0)[:dim], vectors.flip(1)[:, :dim]
    return Axes(mean.float(), (white @ vectors / values**POWER).float())


def _principal(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of x (N, F), and the `dim` largest variances (dim,) and their directions (F, dim)."""
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((x - mean).T))
    return mean, values.flip(0)[:dim], vectors.flip(1)[:, :dim]


def principal(features: Tensor, dim: int) -> Axes:
    """The `dim` directions in which features (N, F) vary most, each at unit variance."""
    mean, values, vectors = _principal(features.double(), dim)
    return Axes(mean.float(), (vectors / values.clamp(min=1e-12).sqrt()).float())


def colour_axes(pixels: Tensor, cells: int, dim: int) -> tuple[Tensor, Tensor]:
    """The layout map's weight (dim, 3 cells²) and bias (dim,), by photos (N, 3, S, S) in [-1, 1].

    The principal directions of the cells' mean colours, tempered by POWER, and a last coordinate that is one: after a
    vector has been brought to a fixed norm, how large the others were can be told from it, so that a grey picture is
    not a noisy one.
    """
    x = F.adaptive_avg_pool2d(pixels, cells).flatten(1).double()
    mean, values, vectors = _principal(x, dim - 1)
    matrix = vectors / values**POWER
    matrix = matrix / ((x - mean) @ matrix).pow(2).sum(1).mean().sqrt()
    weight = torch.cat((matrix.T, torch.zeros(1, len(mean), dtype=matrix.dtype)))
    bias = torch.cat((-mean @ matrix, torch.ones(1, dtype=matrix.dtype)))
    return weight.float(), bias.float()


def regression(features: Tensor, targets: Tensor, penalty: float = 0.02) -> Axes:
    """The affine map from features (N, F) nearest to targets (N, D), by ridge regression; its offset, the targets'
    mean, is left out.
    """
    x, y = features.double(), targets.double()
    mean = x.mean(0)
    x = x - mean
    covariance = x.T @ x
    covariance += penalty * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=x.dtype)
    return Axes(mean.float(), torch.linalg.solve(covariance, x.T @ (y - y.mean(0))).float())
