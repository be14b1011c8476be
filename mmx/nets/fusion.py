"""Several points of one space → one: how a bridge with two sources puts them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fusion(nn.Module):
    """The mean of what is there, corrected by a network that sees all of it at once.

    Each part is brought to unit norm, so that none drowns another by its scale; a learned vector stands for a part that
    is missing. The correction starts at zero: at first every part counts the same.
    """

    def __init__(self, dim: int, parts: int, width: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.randn(parts, dim) / dim**0.5)
        self.mix = nn.Sequential(
            nn.LayerNorm(parts * dim),
            nn.Linear(parts * dim, width),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(width, dim),
        )
        nn.init.zeros_(self.mix[-1].weight)
        nn.init.zeros_(self.mix[-1].bias)

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        """Parts (B, M, D), any norm, and which are there (B, M), bool, one at least → unit-norm points (B, D)."""
        unit = F.normalize(parts.float(), dim=-1)
        weights = there.to(unit.dtype)[:, :, None]
        mean = (unit * weights).sum(1) / weights.sum(1)
        seen = torch.where(there[:, :, None], unit, self.missing.expand_as(unit))
        return F.normalize(mean + self.mix(seen.flatten(1)).float(), dim=-1)
