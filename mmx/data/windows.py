"""Texts → pairs of a word and a word near it, and words drawn by how often they are said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
POWER = 0.75  # negatives are drawn by their number to this power
FAR = -1  # between texts, in place of a word
DRAWN = 4  # times as many pairs are drawn as are wanted: frequent words are often dropped


def words_of_text(text: str) -> list[str]:
    """The words of a text in lower case; "o'clock" is one."""
    return WORD.findall(text)


def vocabulary(texts: Sequence[str], least: int) -> dict[str, int]:
    """Words that are there at least so often, and how often, most frequent first, equal ones by the alphabet."""
    counts = Counter(word for text in texts for word in words_of_text(text))
    return dict(sorted(((w, n) for w, n in counts.items() if n >= least), key=lambda own: (-own[1], own[0])))


class Windows:
    """Draws (word, word near it), both by their numbers in a vocabulary.

    window: words on either side of the one in the middle; of those at a distance k only (window - k + 1) / window are
    taken, as if each window were cut to a random size. often: share of all words from which on a word is dropped now
    and then: of those with a share f, a part sqrt(often / f) is kept. Words that are not in the vocabulary are as if
    they were not there.
    """

    def __init__(self, texts: Sequence[str], counts: dict[str, int], *, window: int, often: float) -> None:
        numbers = {word: number for number, word in enumerate(counts)}
        row = []
        for text in texts:
            row += [numbers[word] for word in words_of_text(text) if word in numbers] + [FAR] * window
        self.row, self.window = torch.tensor([FAR] * window + row), window
        share = torch.tensor(list(counts.values()), dtype=torch.float64)
        self.kept = (often * share.sum() / share).sqrt().clamp(max=1) if often else torch.ones_like(share)
        self.noise = (share**POWER).cumsum(0)
        distances = [k for k in range(1, window + 1) for _ in range(window - k + 1)]
        self.offsets = torch.tensor([*distances, *(-k for k in distances)])

    def pairs(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """So many words (size,), and of each one that is near it (size,)."""
        found: list[tuple[Tensor, Tensor]] = []
        while sum(len(first) for first, _ in found) < size:
            found.append(self._some(DRAWN * size, generator))
        first, second = (torch.cat(side)[:size] for side in zip(*found, strict=True))
        return first, second

    def _some(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Those that are left of `count` places and distances."""
        inner = len(self.row) - 2 * self.window
        at = torch.randint(inner, (count,), generator=generator) + self.window
        away = self.offsets[torch.randint(len(self.offsets), (count,), generator=generator)]
        both = torch.stack((self.row[at], self.row[at + away]))
        there = (both != FAR).all(0)
        both = both[:, there]
        chosen = (torch.rand(both.shape, generator=generator, dtype=torch.float64) < self.kept[both]).all(0)
        return both[0, chosen], both[1, chosen]

    def negatives(self, size: int, count: int, generator: torch.Generator) -> Tensor:
        """Words by their number to the power of POWER (size, count)."""
        drawn = torch.rand(size, count, generator=generator, dtype=torch.float64) * self.noise[-1]
        return torch.searchsorted(self.noise, drawn, right=True).clamp(max=len(self.noise) - 1)
