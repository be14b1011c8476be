"""A face recogniser's kind of network: a face → one unit-norm feature, and what the feature says of age and gender."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.nets.towers import ResNet, fitted

GENDERS = ("female", "male")  # the data's labels are binary; people are not


class FaceEncoder(nn.Module):
    """A residual CNN, a linear feature, and a linear classifier over gender and age band together on top of it.

    The raw feature has the norm sqrt(D), so that a coordinate has a variance near 1, which is what a diffusion model
    likes to be fed. The classifier is the layer whose softened answers a voice encoder is taught (Speech2Face, Oh et
    al. 2019).
    """

    def __init__(
        self,
        image_encoder: ResNet,
        *,
        dim: int = 256,
        image_size: int = 96,
        sees: int = 64,
        ages: Sequence[int] = (18, 26, 33, 43, 56),
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.dim, self.image_size, self.sees, self.ages = dim, image_size, sees, tuple(ages)
        channels = image_encoder.widths[-1]
        side = sees // 4 // 2 ** (len(image_encoder.widths) - 1)  # the stem divides by 4, each later stage by 2
        self.pooled = nn.Linear(channels, dim)
        self.placed = nn.Linear(channels * side * side, dim)  # where in the face: what pooling forgets
        self.attributes = nn.Linear(dim, len(GENDERS) * len(self.ages))

    def feature_maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, S, S) in [-1, 1] → the stem's and every stage's feature map, finest first."""
        return self.image_encoder(fitted(pixels, self.sees))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] → raw features (B, D) of norm sqrt(D)."""
        features = self.feature_maps(pixels)[-1].float()
        both = self.pooled(features.mean((2, 3))) + self.placed(features.flatten(1))
        return F.normalize(both.float(), dim=-1) * math.sqrt(self.dim)

    def classify(self, raw: Tensor) -> Tensor:
        """Raw features (B, D) → logits (B, genders * age bands), gender-major."""
        return self.attributes(raw)

    def class_of(self, gender: str, age: float) -> int:
        """The class of a labelled face."""
        band = max(sum(age >= start for start in self.ages) - 1, 0)
        return GENDERS.index(gender) * len(self.ages) + band

    def gender_shares(self, raw: Tensor) -> Tensor:
        """Raw features (B, D) → probabilities (B, genders), summed over age bands."""
        return self.classify(raw).float().softmax(-1).unflatten(-1, (len(GENDERS), len(self.ages))).sum(-1)

    def age_shares(self, raw: Tensor) -> Tensor:
        """Raw features (B, D) → probabilities (B, age bands), summed over genders."""
        return self.classify(raw).float().softmax(-1).unflatten(-1, (len(GENDERS), len(self.ages))).sum(-2)


def unit(raw: Tensor) -> Tensor:
    """Vectors scaled to norm 1."""
    return torch.nn.functional.normalize(raw, dim=-1)
