"""Beam search for several texts side by side: the best by their mean log-probability a token, as in ZeroCap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mmx.guided.language import LanguageModel


@dataclass
class Beams:
    """Of N texts B beams each, at first one. ids (N, B, T): rows that are over are filled with their end. sums (N, B):
    of log-probabilities; lengths (N, B): tokens that these are of; open (N, B): which are not over."""

    ids: Tensor
    sums: Tensor
    lengths: Tensor
    open: Tensor
    width: int
    begun: int
    ends: tuple[int, ...]

    @classmethod
    def begin(cls, prefix: Sequence[int], count: int, width: int, lm: LanguageModel) -> Self:
        """One beam a text, of the prefix."""
        ids = torch.tensor(list(prefix), device=lm.device).expand(count, 1, -1)
        zeros = torch.zeros(count, 1, device=lm.device)
        open_ = torch.ones_like(zeros, dtype=torch.bool)
        return cls(ids, zeros, zeros, open_, width=width, begun=len(prefix), ends=lm.ends)

    @property
    def live(self) -> Tensor:
        """The rows that go on (R, T)."""
        return self.ids[self.open]

    @property
    def owners(self) -> Tensor:
        """(R,): which text each row that goes on is of."""
        return self.open.nonzero()[:, 0]

    def grow(self, log_p: Tensor) -> Tensor:
        """Log-probabilities (R, V) of the next token of the rows that go on → of the new ones, which of these each
        follows on (R',). What is over stays as it is, and competes."""
        count, width, vocabulary = *self.open.shape, log_p.shape[1]
        every = log_p.new_full((count, width, vocabulary), -torch.inf)
        every[self.open] = log_p
        every[..., self.ends[0]] = torch.where(self.open, every[..., self.ends[0]], 0.0)
        sums, lengths = self.sums[..., None] + every, self.lengths + self.open
        best = (sums / lengths[..., None]).flatten(1).topk(min(self.width, width * vocabulary), dim=1).indices
        parents, tokens = best // vocabulary, best % vocabulary
        numbers = torch.full_like(self.open, -1, dtype=torch.long)
        numbers[self.open] = torch.arange(len(log_p), device=log_p.device)
        self.sums, self.lengths = sums.flatten(1).gather(1, best), lengths.gather(1, parents)
        kept = self.ids.gather(1, parents[..., None].expand(-1, -1, self.ids.shape[2]))
        self.ids = torch.cat((kept, tokens[..., None]), 2)
        over = torch.isin(tokens, torch.tensor(self.ends, device=tokens.device))
        self.open = self.open.gather(1, parents) & ~over & torch.isfinite(self.sums)
        return numbers.gather(1, parents)[self.open]

    def results(self) -> list[list[list[int]]]:
        """Of each text the ids of its beams after the prefix, without the end."""
        rows = zip(self.ids.tolist(), self.sums.tolist(), strict=True)
        return [[self._written(row) for row, own in zip(*beams, strict=True) if own > -math.inf] for beams in rows]

    def _written(self, row: Sequence[int]) -> list[int]:
        return [token for token in row[self.begun :] if token not in self.ends]
