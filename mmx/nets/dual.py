"""A joint image-text space whose image embedding also carries layout: the teacher of the starter models."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.nets.towers import ResNet, TextTower, fitted


class DualEncoder(nn.Module):
    """A residual CNN for images and a CLIP text tower that meet in one space (CLIP, Radford et al. 2021).

    The image embedding is two parts side by side, each of a fixed share of the norm: a semantic part, read off the
    pooled features, and a layout part, read off the feature map before pooling. The contrastive loss shapes the
    first, a reconstruction head the second; texts and sounds are matched with the whole vector. Raw embeddings have
    the norm sqrt(D), so that a coordinate has a variance near 1, which is what diffusion models like to be fed.

    layout_cells: read the layout part off the mean colours of so many cells a side instead, by a map that is fixed and
    not learned. sees: pixels of a side at which the image tower looks, where that is not image_size.
    """

    def __init__(
        self,
        image_encoder: ResNet,
        text_encoder: TextTower,
        *,
        image_size: int = 64,
        sees: int = 0,
        semantic_dim: int | None = None,
        semantic_share: float = 0.6,
        layout_cells: int = 0,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_size, self.sees = image_size, sees or image_size
        self.dim = text_encoder.dim
        self.shares = (math.sqrt(semantic_share), math.sqrt(1 - semantic_share))
        self.layout_cells = layout_cells
        channels = image_encoder.widths[-1]
        semantic_dim = semantic_dim or self.dim // 2
        side = self.sees // 4 // 2 ** (len(image_encoder.widths) - 1)  # the stem divides by 4, each later stage by 2
        self.semantic = nn.Linear(channels, semantic_dim)
        self.layout = nn.Linear(3 * layout_cells**2 or channels * side * side, self.dim - semantic_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def feature_maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels (B, 3, S, S) in [-1, 1] → the stem's and every stage's feature map, finest first."""
        return self.image_encoder(fitted(pixels, self.sees))

    def image_parts(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, S, S) in [-1, 1] → the semantic and the layout part, scaled so that they form a unit vector."""
        return self.parts_of(pixels, self.feature_maps(pixels)[-1].float())

    def parts_of(self, pixels: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """As `image_parts`, where the last feature map of the pixels is known."""
        semantic = F.normalize(self.semantic(features.mean((2, 3))).float(), dim=-1)
        return semantic * self.shares[0], self.layout_part(pixels, features)

    def layout_part(self, pixels: Tensor, features: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) and the last feature map of them → the layout part, of its share of the norm."""
        seen = F.adaptive_avg_pool2d(pixels.float(), self.layout_cells) if self.layout_cells else features
        return F.normalize(self.layout(seen.flatten(1)).float(), dim=-1) * self.shares[1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [-1, 1] → raw embeddings (B, D) of norm sqrt(D)."""
        return torch.cat(self.image_parts(pixels), dim=-1) * math.sqrt(self.dim)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (B, L) → unit-norm embeddings (B, D)."""
        return F.normalize(self.text_encoder(input_ids, attention_mask).float(), dim=-1)


class LayoutHead(nn.Module):
    """Raw embedding (B, D) → a coarse picture (B, 3, 32, 32) in [-1, 1]; only there to put layout into the
    embedding.
    """

    def __init__(self, dim: int, width: int = 128) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(dim, width * 16)
        blocks: list[nn.Module] = []
        for _level in range(3):
            blocks += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, width // 2, 3, padding=1),
                nn.GroupNorm(8, width // 2),
                nn.SiLU(),
            ]
            width //= 2
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, embeds: Tensor) -> Tensor:
        return self.blocks(self.project(embeds).unflatten(1, (self.width, 4, 4)))
