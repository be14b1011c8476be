"""The small CNN that reads series and maps of numbers, and heads on what frozen encoders see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmx.nets.sound import VectorHead, group_norm, pooled_head

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}


class _Block(nn.Sequential):
    def __init__(self, convolution: type[nn.Module], inputs: int, outputs: int) -> None:
        super().__init__(
            convolution(inputs, outputs, 3, 2, 1, bias=False),
            group_norm(outputs),
            nn.SiLU(),
            convolution(outputs, outputs, 3, padding=1, bias=False),
            group_norm(outputs),
            nn.SiLU(),
        )


class ArrayCNN(nn.Module):
    """Standardised series (B, C, T) or maps (B, C, H, W) → embedding (B, D), any norm: mean and max over what is left
    of time or place. axes: 1 or 2; inputs: C."""

    def __init__(
        self,
        dim: int,
        axes: int,
        inputs: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        sizes = (inputs, *channels)
        self.blocks = nn.Sequential(*(_Block(CONVOLUTIONS[axes], a, b) for a, b in pairwise(sizes)))
        self.head = pooled_head(channels[-1], dim, dropout)
        if axes == 2:
            self.to(memory_format=torch.channels_last)

    def tokens(self, features: Tensor) -> Tensor:
        """(B, C, T) or (B, C, H, W) → what each place is like (B, P, channels[-1])."""
        return self.blocks(features).flatten(2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        places = self.tokens(features)
        return self.head(places.mean(1) + places.amax(1))


class PatchHead(nn.Module):
    """Patches (B, P, C) of a frozen encoder → embedding (B, D): a head on their mean."""

    def __init__(self, dim: int, inputs: int, width: int = 1024, dropout: float = 0.2) -> None:
        super().__init__()
        self.head = VectorHead(dim, inputs, width, dropout)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features.mean(1))
