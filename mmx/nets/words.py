"""Skip-gram with negative sampling (Mikolov et al. 2013, "Distributed Representations of Words and Phrases")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SkipGram(nn.Module):
    """Two vectors of each word: one as the word in the middle of a window, one as a word around it."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.target, self.context = nn.Embedding(words, dim), nn.Embedding(words, dim)
        nn.init.uniform_(self.target.weight, -0.5 / dim, 0.5 / dim)
        nn.init.zeros_(self.context.weight)

    def forward(self, targets: Tensor, others: Tensor) -> Tensor:
        """Words (B,) and words that may lie around them (B, C) → logits (B, C): whether they do."""
        return (self.context(others) @ self.target(targets)[..., None]).squeeze(-1)


def negative_sampling_loss(logits: Tensor) -> Tensor:
    """Logits (B, 1 + K) of a true context and of K drawn words → the mean of -log s(true) - sum of log s(-drawn)."""
    return (F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1:]).sum(1)).mean()
