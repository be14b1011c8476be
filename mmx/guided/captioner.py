"""Points of a space → captions: what is written for each, and the choice among it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.errors import UsageError
from mmx.guided.caption import Guidance, Guided
from mmx.guided.gibbs import Sampled
from mmx.guided.language import LanguageModel
from mmx.guided.scorer import ByText, scorer_for
from mmx.media.formats import MODALITIES
from mmx.spaces.base import Space
from mmx.spaces.compass import Compass, known_means

EVEN = 0.01  # of cosine, that a caption may fit less for being e times as likely a token: so near, words say the same


@dataclass(frozen=True)
class Caption:
    """A text; the cosine between it and what it is of, both less the means of their modalities; and its perplexity, by
    the language model alone, a token after the prefix."""

    text: str
    score: float
    perplexity: float


class Captioner:
    """A space, a language model, and how the first guides the second.

    fast: by sampling instead of by gradients; the guidance's steps are the times that a sentence is gone over.
    """

    def __init__(self, space: Space, lm: LanguageModel, guidance: Guidance, *, fast: bool = False) -> None:
        space.require("text")
        means = known_means(space)
        self.space, self.lm, self.guidance = space, lm, guidance
        self.compass, self.mean = Compass(space, means), means[MODALITIES.index("text")]
        self.scorer = scorer_for(space, lm, self.mean)
        self.guided = Guided(lm, self.scorer, guidance)
        texts = self.scorer if isinstance(self.scorer, ByText) else ByText(space, lm, self.mean)
        self.sampled = Sampled(lm, texts, guidance.longest, guidance.steps) if fast else None

    def begin(self, prefix: str) -> list[int]:
        """The ids of a text's beginning. Raises UsageError for one that leaves no room, or is nothing."""
        ids = self.lm.encode(prefix)
        room = min(self.lm.length, self.scorer.room) - self.guidance.longest
        if not ids:
            raise UsageError("the language model has no token that begins a text", hint="give a --prefix")
        if len(ids) > room:
            raise UsageError(f"--prefix {prefix[:40]}: of {len(ids)} tokens, and there is room for {room}")
        return ids

    def captions(self, targets: Tensor, prefix: str, num: int = 1, *, seed: int = 0) -> list[list[Caption]]:
        """Unit vectors (N, D) → of each at most `num` captions, the one that fits best first, of those that fit as well
        the likelier.

        seed: of what is sampled, the same for each.

        Raises UsageError, NonFiniteError, KeyboardInterrupt.
        """
        ids = self.begin(prefix)
        if self.sampled is None:
            beams = self.guided.write(ids, targets)
        else:
            beams = self._samples(self.sampled, ids, targets, seed)
        return [self._chosen(prefix, ids, own, target)[:num] for own, target in zip(beams, targets, strict=True)]

    def _samples(self, sampled: Sampled, ids: list[int], targets: Tensor, seed: int) -> list[list[list[int]]]:
        draws = [torch.Generator().manual_seed(seed) for _ in targets]
        return [sampled.write(ids, own, self.guidance.beam, draw) for own, draw in zip(targets, draws, strict=True)]

    def _chosen(self, prefix: str, ids: list[int], beams: Sequence[list[int]], target: Tensor) -> list[Caption]:
        """Beams as texts, the one that the space finds nearest first, of those as near the likelier; each text once."""
        begun = len(self.lm.decode(ids))
        rows = {prefix + self.lm.decode([*ids, *row])[begun:]: row for row in reversed(beams)}
        points = F.normalize(self.space.encode(list(rows), "text") - self.mean, dim=-1)
        scores = (points @ target.cpu()).tolist()
        whole = [[*ids, *row, self.lm.end] for row in rows.values()]
        likely = self.lm.log_likelihood(whole, len(ids))
        perplexities = [
            float(torch.tensor(-own / (len(row) - len(ids))).exp()) for own, row in zip(likely, whole, strict=True)
        ]
        found = [Caption(*each) for each in zip(rows, scores, perplexities, strict=True)]
        return sorted(found, key=lambda caption: EVEN * math.log(caption.perplexity) - caption.score)
