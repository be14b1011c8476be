"""The unit writer: a small autoregressive transformer that looks at an image's patches and writes units."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.device import threads_for
from mmx.nets.gpt import LanguageModel, without, without_repeats

MAX_UNITS = 160  # collapsed units an utterance may have
MAX_REPEAT = 24  # of one unit: 0.77 s
LEAST = 4  # units an utterance has
REPEATED = 6  # units that never come again in the same order: an utterance would go round in circles


@dataclass(frozen=True)
class Sampling:
    """How units are chosen. beam 1 and temperature 0 is greedy; a temperature above 0 samples from the `top_p` nucleus.

    candidates: of so many samples the likeliest is taken. Where many wordings are as likely as each other, this finds
    what is most likely said better than a beam, which they fill.
    """

    beam: int = 1
    temperature: float = 0.0
    top_p: float = 0.9
    candidates: int = 1


class UnitWriter(nn.Module):
    """GPT-2 (Radford et al. 2019) over run-length-collapsed units, after a prefix of image patches; and how long each
    unit lasts.

    Patches are vectors (B, P, C). Token ids: the units, then pad, begin and end.
    """

    def __init__(
        self,
        units: int,
        patches: int,
        channels: int,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pad, self.begin, self.end = units, units + 1, units + 2
        self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.unseen = nn.Dropout1d(
            2 * dropout
        )  # whole patches: what is seen of a photo in training, val lacks in its own way
        self.places = nn.Parameter(torch.randn(patches, width) * 0.02)
        self.language = LanguageModel(units + 3, patches + MAX_UNITS + 2, width, depth, heads=heads, dropout=dropout)
        self.lasting = nn.Linear(width, 1)

    def prefix(self, patches: Tensor) -> Tensor:
        """Patches (B, P, C) → the embedded prefix (B, P + 1, W), which ends with the begin token."""
        seen = self.unseen(self.look(patches)) + self.places
        begin = torch.full((len(patches), 1), self.begin, device=patches.device)
        return torch.cat((seen, self.language.transformer.wte(begin)), dim=1)

    def _hidden(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states (B, M + 1, W): position 0 is that of the begin token, m + 1 that of token m."""
        embedded = torch.cat((self.prefix(patches), self.language.transformer.wte(tokens)), dim=1)
        return self.language.hidden(embedded)[:, patches.shape[1] :]

    def loss(self, patches: Tensor, tokens: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean cross-entropy of the next token, mean error of log durations, and the state (B, W) that has seen all and
        said nothing.

        tokens (B, M): units, then one end token, then padding; counts (B, M): repeats of the units, 0 elsewhere.
        """
        hidden = self._hidden(patches, tokens)
        logits = self.language.lm_head(hidden[:, :-1])
        nll = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), ignore_index=self.pad)
        spoken = counts > 0
        guess = self.lasting(hidden[:, 1:])[..., 0].float()
        return nll, F.smooth_l1_loss(guess[spoken], counts[spoken].float().log()), hidden[:, 0]

    @torch.no_grad()
    def write(self, patches: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """Patches of one image (P, C), or of several views of it (V, P, C) → its units (L,), with repeats.

        The end is the model's own, forced after MAX_UNITS. No REPEATED units come again in the same order.
        """
        with threads_for(self):
            return self._write(patches if patches.dim() == 3 else patches[None], sampling, generator)

    def _write(self, views: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """As `write`, of views (V, P, C)."""
        drawn = self._generate(views, sampling, generator)
        tokens = drawn[0]
        if len(drawn) > 1:  # a view may mislead; the likeliest of all views together does less
            tokens = drawn[torch.stack([self._likelihoods(view, drawn) for view in views]).mean(0).argmax()]
        units = tokens[(tokens != self.end) & (tokens != self.pad) & (tokens != self.begin)]
        hidden = self._hidden(views[:1], units[None])
        counts = self.lasting(hidden[:, 1:])[0, :, 0].float().exp().round().clamp(1, MAX_REPEAT).long()
        return units.repeat_interleave(counts)

    def _generate(self, views: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
        """Patches of an image's views (V, P, C) → token ids (K, L) of so many candidates."""
        prefix = self.prefix(views)[torch.arange(sampling.candidates) % len(views)]  # the views take turns
        draws = _Gumbel(sampling.temperature, sampling.top_p, generator) if sampling.temperature > 0 else None
        if sampling.beam > 1:
            return self._searched(prefix, sampling.beam, draws)

        def choose(tokens: Tensor, scores: Tensor) -> Tensor:
            scores = without_repeats(tokens, scores, REPEATED)
            never = (self.pad, self.begin, self.end) if tokens.shape[1] < LEAST else (self.pad, self.begin)
            scores = without(scores, never)
            return scores if draws is None else draws(tokens, scores)

        return self.language.greedy(prefix, choose, MAX_UNITS, end=self.end, pad=self.pad)

    def _searched(self, prefix: Tensor, beam: int, draws: _Gumbel | None) -> Tensor:
        """As `_generate`, by the transformers library's beam search."""
        from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessorList

        tokens = {"bos_token_id": self.begin, "eos_token_id": self.end, "pad_token_id": self.pad}
        with torch.device("meta"):
            theirs = GPT2LMHeadModel(GPT2Config(**self.language.sizes, **tokens, tie_word_embeddings=False))
        theirs.load_state_dict(self.language.state_dict(), assign=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no_repeat_ngram_size.*")  # it is meant for the units alone
            return theirs.eval().generate(
                inputs_embeds=prefix,
                attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
                max_new_tokens=MAX_UNITS,
                min_new_tokens=LEAST,
                num_beams=beam,
                do_sample=False,
                no_repeat_ngram_size=REPEATED,
                length_penalty=0.0,  # the likeliest utterance, and not the likeliest a unit: that favours long ones
                logits_processor=LogitsProcessorList([draws] if draws else []),
                suppress_tokens=[self.pad, self.begin],
            )

    def _likelihoods(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """Log-likelihood (K,) of each of some utterances (K, L), which may end before they are filled up with
        padding.
        """
        hidden = self._hidden(patches.expand(len(tokens), -1, -1), tokens)
        shares = self.language.lm_head(hidden[:, :-1]).float().log_softmax(-1)
        return shares.gather(2, tokens[:, :, None])[:, :, 0].masked_fill(tokens == self.pad, 0.0).sum(1)


class _Gumbel:
    """Sampling as an argmax: scores plus Gumbel noise from our own generator (transformers samples from the global
    one).
    """

    def __init__(self, temperature: float, top_p: float, generator: torch.Generator) -> None:
        self.temperature, self.top_p, self.generator = temperature, top_p, generator

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        shares = (scores.float() / self.temperature).log_softmax(-1)
        ordered, places = shares.sort(descending=True)
        outside = ordered.exp().cumsum(-1) - ordered.exp() > self.top_p
        shares = shares.masked_fill(torch.zeros_like(outside).scatter(-1, places, outside), float("-inf"))
        uniform = torch.rand(shares.shape, generator=self.generator).to(shares.device).clamp(1e-9, 1 - 1e-7)
        return shares - (-uniform.log()).log()
