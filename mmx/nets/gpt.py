"""GPT-2 (Radford et al. 2019) for the unit writer and for captions, and greedy search with it.

The network and the search are the transformers library's GPT2LMHeadModel and `generate` without a beam, written down
for what the writer uses of them: the same names of tensors and, tested, the same bytes. The library takes seconds to
import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPREAD = 0.02  # standard deviation of initial weights
Cache = list[tuple[Tensor, Tensor]]  # keys and values (B, H, L, C) of each layer


class _Linear(nn.Module):
    """A linear layer whose weight is stored as OpenAI stored it, inputs first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=SPREAD)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class _Attention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = _Linear(width, 3 * width), _Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, L, C), which follows on `past` → (B, L, C), and the keys and values of all."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=2)
        )
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=query.shape[-1] ** -0.5,
            is_causal=x.shape[1] > 1,
        )
        return self.dropout(self.c_proj(mixed.transpose(1, 2).flatten(2).contiguous())), (key, value)


class _Perceptron(nn.Module):
    """Four times the width, with the tanh form of the GELU."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.c_fc, self.c_proj = _Linear(width, 4 * width), _Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        x = 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))
        return self.dropout(self.c_proj(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), _Attention(width, heads, dropout)
        self.ln_2, self.mlp = nn.LayerNorm(width), _Perceptron(width, dropout)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, seen = self.attn(self.ln_1(x), past)
        x = mixed + x
        return x + self.mlp(self.ln_2(x)), seen


class _Transformer(nn.Module):
    def __init__(self, vocabulary: int, length: int, width: int, layers: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """As the paper: normal, narrower where a residual path ends, of which there are two a layer."""
        if isinstance(module, _Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=SPREAD)
        if isinstance(module, _Attention | _Perceptron):
            nn.init.normal_(module.c_proj.weight, std=SPREAD / math.sqrt(2 * len(self.h)))

    def forward(self, embedded: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Embedded tokens (B, L, C), which follow on `past` → hidden states (B, L, C), and what to go on from."""
        start = past[0][0].shape[2] if past else 0
        x = self.drop(embedded + self.wpe.weight[None, start : start + embedded.shape[1]])
        seen = []
        for number, block in enumerate(self.h):
            x, own = block(x, past[number] if past else None)
            seen.append(own)
        return self.ln_f(x), seen


class LanguageModel(nn.Module):
    """Tokens → logits of the next one. The embedding and the head are not tied."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.sizes = {"vocab_size": vocabulary, "n_positions": length, "n_embd": width, "n_layer": layers}
        self.sizes |= {"n_head": heads}
        self.transformer = _Transformer(vocabulary, length, width, layers, heads=heads, dropout=dropout)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.lm_head.weight, std=SPREAD)

    def hidden(self, embedded: Tensor) -> Tensor:
        """Embedded tokens (B, L, C) → hidden states (B, L, C)."""
        return self.transformer(embedded)[0]

    def greedy(
        self, prefix: Tensor, choose: Callable[[Tensor, Tensor], Tensor], most: int, end: int, pad: int
    ) -> Tensor:
        """An embedded prefix (K, P, C) → tokens (K, L), L at most `most`.

        Each time the likeliest is taken of what `choose` makes of the tokens so far (K, M) and the scores of the next
        (K, V). After its end a row is padded.

        Keys and values of what was written are kept.
        """
        hidden, past = self.transformer(prefix)
        tokens = torch.empty(len(prefix), 0, dtype=torch.long, device=prefix.device)
        open_ = torch.ones(len(prefix), dtype=torch.bool, device=prefix.device)
        while True:
            scores = choose(tokens, self.lm_head(hidden[:, -1:])[:, -1].float())
            new = torch.where(open_, scores.argmax(-1), pad)
            tokens = torch.cat((tokens, new[:, None]), 1)
            open_ = open_ & (new != end)
            if tokens.shape[1] == most or not open_.any():
                return tokens
            hidden, past = self.transformer(self.transformer.wte(new[:, None]), past)


class TiedLanguageModel(nn.Module):
    """Tokens → logits of the next one; the head is the embedding, as in GPT-2's own weights."""

    def __init__(
        self, vocabulary: int, length: int, width: int, layers: int, *, heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.sizes = {"vocab_size": vocabulary, "n_positions": length, "n_embd": width, "n_layer": layers}
        self.sizes |= {"n_head": heads}
        self.transformer = _Transformer(vocabulary, length, width, layers, heads=heads, dropout=dropout)

    def forward(self, ids: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Token ids (B, L), which follow on `past`, then one → logits (B, L, V), and keys and values of all."""
        hidden, seen = self.transformer(self.transformer.wte(ids), past)
        return F.linear(hidden, self.transformer.wte.weight), seen


def without_repeats(tokens: Tensor, scores: Tensor, length: int) -> Tensor:
    """Scores (K, V) of which those are -inf that would make a row of tokens (K, M) hold `length` tokens twice in the
    same order.
    """
    if tokens.shape[1] + 1 < length:
        return scores
    scores = scores.clone()
    for row, own in enumerate(tokens.tolist()):
        last = own[len(own) - length + 1 :]
        banned = [own[k + length - 1] for k in range(len(own) - length + 1) if own[k : k + length - 1] == last]
        scores[row, banned] = -math.inf
    return scores


def without(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """Scores (K, V) of which those of some tokens are -inf."""
    return scores.index_fill(1, torch.tensor(list(tokens), device=scores.device), -math.inf)
