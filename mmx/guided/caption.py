"""A point of a space in words (ZeroCap, Tewel et al. 2022): a frozen language model writes, the space says where to.

For each token the residual is a shift of the language model's cached keys and values. Of the K likeliest tokens the
space says how well the text with each of them fits; the shift moves the probabilities there, and is held back by how
far they leave the unshifted ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmx.errors import NonFiniteError
from mmx.guided.beams import Beams
from mmx.guided.language import LanguageModel
from mmx.guided.residual import Schedule, Term, normalised, optimise
from mmx.guided.scorer import Scorer
from mmx.nets.gpt import Cache, without_repeats

NEVER = -1e4  # a logit of what must not be written: finite, so that its share of a divergence is 0 and no NaN


@dataclass(frozen=True)
class Guidance:
    """The numbers of ZeroCap (section 3 and the authors' code), but for the steps, 5 there, and the temperature, 0.01:
    these were tuned on val.

    steps, rate, exponent: of the gradient; 0 steps leave the language model alone; rate None: the language model's own.
    candidates: K. temperature: of the space's say. closeness, fluency: weights of both losses. fusion: the exponent of
    the shifted probabilities, beside the unshifted ones with the rest.
    end_factor: how the end's logit is favoured, from the second token on. longest: tokens after the prefix.

    Four are ours, and 0 in the paper. ease: over the last of the steps, so large a share, the rate falls as a cosine:
    steps of one length go past what they are to reach, and back. plausible, within: no word begins, and none goes on,
    with what is less likely, unshifted, than so much of what is likeliest (as in contrastive decoding, Li et al. 2023),
    or words fall apart where the space likes their pieces. gain: where the best token fits better than what would be
    written by no more than this cosine, nothing is shifted, or the space's indifference would flatten what the model
    knows.
    """

    steps: int = 20
    candidates: int = 512
    beam: int = 5
    longest: int = 15
    rate: float | None = None
    exponent: float = 0.9
    temperature: float = 0.014
    closeness: float = 1.0
    fluency: float = 0.2
    fusion: float = 0.99
    end_factor: float = 1.01
    ease: float = 1.0
    plausible: float = 0.0003
    within: float = 0.05
    gain: float = 0.05


@dataclass(frozen=True)
class Seen:
    """log_p, before: logarithms of the shifted and the unshifted probabilities (R, V). ids, wanted: the likeliest
    tokens (R, K), and what of all of them the space would give each."""

    log_p: Tensor
    before: Tensor
    ids: Tensor
    wanted: Tensor


def closeness(seen: Seen) -> Tensor:
    """Cross entropy between what the space wants and the shifted probabilities, summed over rows (equation 4)."""
    return -(seen.wanted * seen.log_p.gather(1, seen.ids)).sum()


def fluency(seen: Seen) -> Tensor:
    """Divergence of the shifted probabilities from the unshifted ones, summed over rows (equation 5)."""
    return (seen.log_p.exp() * (seen.log_p - seen.before)).sum()


class Guided:
    """A language model, guided."""

    def __init__(self, lm: LanguageModel, scorer: Scorer, guidance: Guidance) -> None:
        self.lm, self.scorer, self.guidance = lm, scorer, guidance
        self.banned = torch.tensor(lm.unwritten, dtype=torch.long, device=lm.device)
        begins, goes_on = (math.log(share) if share else NEVER for share in (guidance.plausible, guidance.within))
        starts = torch.tensor(lm.starts_words(), device=lm.device)
        self.least = torch.where(starts, begins, goes_on)
        self.terms = (Term("closeness", guidance.closeness, closeness), Term("fluency", guidance.fluency, fluency))

    def write(self, prefix: Sequence[int], targets: Tensor) -> list[list[list[int]]]:
        """The prefix's ids, at least one, and unit vectors (N, D) → of each the ids of its beams, prefix and end left
        out, the likeliest first.

        All are written side by side. Raises NonFiniteError, KeyboardInterrupt.
        """
        targets = targets.to(self.lm.device)
        beams = Beams.begin(prefix, len(targets), self.guidance.beam, self.lm)
        with torch.no_grad():
            past = self.lm.causal(beams.live[:, :-1], None)[1] if len(prefix) > 1 else None
            for number in range(self.guidance.longest):
                log_p, past = self._next(beams.live, past, targets[beams.owners], number, len(prefix))
                parents = beams.grow(log_p)
                past = [(keys[parents], values[parents]) for keys, values in past]
                if not len(parents):
                    break
        return beams.results()

    def _next(self, ids: Tensor, past: Cache | None, targets: Tensor, number: int, begun: int) -> tuple[Tensor, Cache]:
        """Rows (R, T), what is cached of all but their last tokens, and unit vectors (R, D) → the logarithms of the
        next token's probabilities (R, V), and what is cached of all."""
        last = ids[:, -1:]
        logits, extended = self.lm.causal(last, past)
        never = self._never(logits[:, -1], number)
        before = logits[:, -1].masked_fill(never, NEVER).log_softmax(-1)
        shifted = logits[:, -1]
        if past is not None and self.guidance.steps:
            shift = self._shift(ids, past, targets, before)
            shifted = self.lm.causal(last, shift)[0][:, -1]
        shifted = self._favoured(shifted.masked_fill(never, NEVER), number).log_softmax(-1)
        fused = self.guidance.fusion * shifted + (1 - self.guidance.fusion) * before
        return without_repeats(ids[:, begun - 1 :], _no_echo(fused, ids), 2).log_softmax(-1), extended

    def _shift(self, ids: Tensor, past: Cache, targets: Tensor, before: Tensor) -> Cache:
        """The cache, moved so that what comes next fits the targets; where nothing is to be gained, as it is."""
        rows = self._promising(ids, targets, before).nonzero()[:, 0]
        if not len(rows):
            return past
        flat = [tensor[rows] for tensor in _flat(past)]
        ids, targets, before = ids[rows], targets[rows], before[rows]
        never = before < NEVER / 2

        def see(residual: Sequence[Tensor], step: int) -> Seen:
            logits, _ = self.lm.causal(ids[:, -1:], _added(flat, residual))
            log_p = logits[:, -1].masked_fill(never, NEVER).log_softmax(-1)
            likeliest, cosines = self._scored(ids, targets, log_p.detach())
            return Seen(log_p, before, likeliest, (cosines / self.guidance.temperature).softmax(-1))

        rate = self.lm.rate if self.guidance.rate is None else self.guidance.rate
        schedule = Schedule(self.guidance.steps, rate, ramp_up=0.0, ramp_down=self.guidance.ease)
        rule = normalised(self.guidance.exponent, by_row=True)
        start = [torch.zeros_like(tensor) for tensor in flat]
        outcome = optimise(start, see, self.terms, schedule, keep="last", rule=rule)
        if outcome.stopped == "interrupted":
            raise KeyboardInterrupt
        if outcome.stopped == "nonfinite":
            raise NonFiniteError("the caption's loss is no number", hint="--dtype fp32, or another --lm")
        moved = _flat(_added(flat, outcome.residual))
        whole = [tensor.index_copy(0, rows, own) for tensor, own in zip(_flat(past), moved, strict=True)]
        return _paired(whole)

    def _scored(self, ids: Tensor, targets: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """The K likeliest tokens after each row (R, K), and the cosines (R, K) of the texts that they make; -inf of
        those that must not be written."""
        likeliest = log_p.topk(min(self.guidance.candidates, log_p.shape[1]))
        with torch.no_grad():
            cosines = self.scorer(ids, likeliest.indices, targets).float()
        return likeliest.indices, cosines.masked_fill(likeliest.values < NEVER / 2, -torch.inf)

    def _promising(self, ids: Tensor, targets: Tensor, before: Tensor) -> Tensor:
        """Rows (R,) after which some token that may be written fits better than what would be, by `gain`."""
        likeliest, cosines = self._scored(ids, targets, before)
        expected = (before.gather(1, likeliest).softmax(-1) * cosines.clamp_min(-1)).sum(1)
        return cosines.amax(1) - expected >= self.guidance.gain

    def _never(self, logits: Tensor, number: int) -> Tensor:
        """Unshifted logits (R, V) → which tokens are not written: what is no text, at first the end, and what is far
        less likely than the likeliest."""
        banned = self.banned
        if number == 0:
            banned = torch.cat((banned, torch.tensor(self.lm.ends, device=banned.device)))
        log_p = logits.index_fill(1, banned, -torch.inf).log_softmax(-1)
        return log_p < log_p.amax(1, keepdim=True) + self.least

    def _favoured(self, logits: Tensor, number: int) -> Tensor:
        if number == 0:
            return logits
        own = logits[:, self.lm.end]
        logits = logits.clone()
        logits[:, self.lm.end] = torch.where(own > 0, own * self.guidance.end_factor, own / self.guidance.end_factor)
        return logits


def _flat(cache: Cache) -> list[Tensor]:
    return [tensor for pair in cache for tensor in pair]


def _paired(flat: Sequence[Tensor]) -> Cache:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _added(flat: Sequence[Tensor], residual: Sequence[Tensor]) -> Cache:
    return _paired([tensor + shift for tensor, shift in zip(flat, residual, strict=True)])


def _no_echo(log_p: Tensor, ids: Tensor) -> Tensor:
    """Without the token that was written last."""
    return log_p.scatter(1, ids[:, -1:], -torch.inf)
