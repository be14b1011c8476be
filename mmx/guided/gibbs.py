"""Captions by Gibbs sampling, without gradients (after ConZIC, Zeng et al. 2023).

A sentence of the language model is gone over, word by word in an order that is drawn anew: at each place the likeliest
tokens after what stands before it are tried, and one is drawn by how likely the whole sentence is and how well the
space says that it fits. ConZIC's BERT fills gaps; here the sentences with the best tokens are read to their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmx.guided.language import LanguageModel
from mmx.guided.scorer import ByText

SWEEPS, TRIED, READ = 3, 48, 6  # times over the sentence; tokens at a place; of these, sentences that are read whole
FIT = 25.0  # nats that a cosine of 1 is worth


@dataclass
class Draft:
    """A sentence's ids after the prefix, and what it is worth in nats."""

    ids: list[int]
    worth: float


class Sampled:
    """A language model and a space that reads texts. longest: tokens after the prefix."""

    def __init__(self, lm: LanguageModel, texts: ByText, longest: int, sweeps: int = SWEEPS) -> None:
        self.lm, self.texts, self.longest, self.sweeps = lm, texts, longest, sweeps
        self.banned = torch.tensor(lm.unwritten, dtype=torch.long, device=lm.device)

    @torch.no_grad()
    def write(self, prefix: Sequence[int], target: Tensor, count: int, generator: torch.Generator) -> list[list[int]]:
        """The prefix's ids and a unit vector (D,) → the ids of `count` sentences after it."""
        return [self._one(list(prefix), target, generator).ids for _ in range(count)]

    def _one(self, prefix: list[int], target: Tensor, generator: torch.Generator) -> Draft:
        ids = self._begun(prefix, generator)
        now = self._worth(prefix, [ids], target)[0]
        best = now
        for _ in range(self.sweeps):
            for place in torch.randperm(len(ids), generator=generator).tolist():
                drafts = self._tried(prefix, now, place, target)
                worths = torch.tensor([draft.worth for draft in drafts], dtype=torch.float64)
                now = drafts[int(torch.multinomial(worths.softmax(0), 1, generator=generator))]
                best = max(best, now, key=lambda draft: draft.worth)
        return best

    def _begun(self, prefix: list[int], generator: torch.Generator) -> list[int]:
        """A sentence of the language model's own."""
        ids: list[int] = []
        while len(ids) < self.longest:
            log_p = self._log_p([*prefix, *ids], ending=len(ids) > 1)
            token = int(torch.multinomial(log_p.exp().cpu(), 1, generator=generator))
            if token in self.lm.ends:
                break
            ids.append(token)
        return ids

    def _log_p(self, ids: Sequence[int], *, ending: bool) -> Tensor:
        """What may follow on ids (V,)."""
        logits = self.lm.causal(torch.tensor([list(ids)], device=self.lm.device), None)[0][0, -1]
        banned = self.banned if ending else torch.cat((self.banned, torch.tensor(self.lm.ends, device=logits.device)))
        return logits.index_fill(0, banned, -torch.inf).log_softmax(0)

    def _tried(self, prefix: list[int], now: Draft, place: int, target: Tensor) -> list[Draft]:
        """The sentence as it is, and with other tokens at a place: those that promise most, read to their end."""
        log_p = self._log_p([*prefix, *now.ids[:place]], ending=False)
        likely = log_p.topk(min(TRIED, len(log_p)))
        others = [[*now.ids[:place], token, *now.ids[place + 1 :]] for token in likely.indices.tolist()]
        promise = likely.values.cpu() + FIT * self._fits(prefix, others, target)
        chosen = [others[k] for k in promise.topk(min(READ, len(others))).indices.tolist() if others[k] != now.ids]
        return [now, *self._worth(prefix, chosen, target)]

    def _fits(self, prefix: list[int], sentences: Sequence[list[int]], target: Tensor) -> Tensor:
        """Cosines (N,) of the texts with the target."""
        return self.texts.points([self.lm.decode([*prefix, *ids]) for ids in sentences]) @ target.cpu()

    def _worth(self, prefix: list[int], sentences: Sequence[list[int]], target: Tensor) -> list[Draft]:
        if not sentences:
            return []
        likely = self.lm.log_likelihood([[*prefix, *ids, self.lm.end] for ids in sentences], len(prefix))
        fits = self._fits(prefix, sentences, target).tolist()
        return [Draft(ids, own + FIT * fit) for ids, own, fit in zip(sentences, likely, fits, strict=True)]
