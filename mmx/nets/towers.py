"""The two towers of the starter teachers: a residual network that sees and a causal transformer that reads.

They are the transformers library's ResNetModel and CLIPTextModelWithProjection, written down for what the starters use
of them: the same names of tensors and, tested, the same bytes. The library's own take seconds to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_TOKENS = 16  # of a text, its start and end counted, where nothing else is said


def fitted(pixels: Tensor, side: int) -> Tensor:
    """Pixels (B, 3, S, S) of any size → the size at which a tower looks (B, 3, side, side), channels last in memory."""
    if pixels.shape[-1] == side:
        return pixels
    shrinks = pixels.shape[-1] > side
    other = F.interpolate(pixels.float(), size=(side, side), mode="bilinear", antialias=shrinks)
    return other.contiguous(memory_format=torch.channels_last)


class _Convolution(nn.Module):
    """Convolution and batch normalisation, then a ReLU where `active`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, active: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalization(self.convolution(x))
        return F.relu(x) if self.active else x


class _Residual(nn.Module):
    """Two convolutions and the way around them (He et al. 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _Convolution(inputs, outputs, 1, stride, active=False)
        self.layer = nn.Sequential(
            _Convolution(inputs, outputs, stride=stride), _Convolution(outputs, outputs, active=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Pixels (B, 3, S, S) → feature maps, the finest first: that of the stem, at S / 4, and of each stage, at half the
    side of the one before it (of the first stage at the stem's).

    widths, depths: channels and blocks of the stages.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.widths, self.depths = tuple(widths), tuple(depths)
        self.embedder, self.encoder = nn.Module(), nn.Module()
        self.embedder.embedder = _Convolution(3, widths[0], 7, 2)
        self.embedder.pooler = nn.MaxPool2d(3, 2, 1)
        self.encoder.stages = nn.ModuleList()
        for k, ((inputs, outputs), depth) in enumerate(zip(pairwise((widths[0], *widths)), depths, strict=True)):
            stage = nn.Module()
            first = _Residual(inputs, outputs, 2 if k else 1)
            stage.layers = nn.Sequential(first, *(_Residual(outputs, outputs, 1) for _ in range(depth - 1)))
            self.encoder.stages.append(stage)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = [self.embedder.pooler(self.embedder.embedder(pixels))]
        for stage in self.encoder.stages:
            maps.append(stage.layers(maps[-1]))
        return tuple(maps)


class _Attention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, ..., C) → queries, keys and values (B, H, ..., C / H)."""
        queries, keys, values = (
            project(x).unflatten(-1, (self.heads, -1)).movedim(-2, 1)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return queries, keys, values

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L, C); mask (B, 1, L, L): where it may look, None where that is everything before it."""
        queries, keys, values = self.split(x)
        causal = mask is None and x.shape[1] > 1
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=queries.shape[-1] ** -0.5, is_causal=causal
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2).contiguous())

    def after(self, x: Tensor, past: tuple[Tensor, Tensor]) -> Tensor:
        """Endings x (U, M, L, C), M of each of U beginnings, whose keys and values (U, H, T, C / H) they share."""
        queries, keys, values = self.split(x)  # (U, H, M, L, C / H)
        count, length = x.shape[1:3]
        shared = (queries.flatten(2, 3) @ past[0].transpose(2, 3)).unflatten(2, (count, length))  # (U, H, M, L, T)
        own = queries @ keys.transpose(3, 4)
        own = own + torch.full((length, length), -torch.inf, device=x.device).triu(1)
        weights = (torch.cat((shared, own), -1) * queries.shape[-1] ** -0.5).softmax(-1)
        before, among = weights.split((past[0].shape[2], length), -1)
        mixed = (before.flatten(2, 3) @ past[1]).unflatten(2, (count, length)) + among @ values
        return self.out_proj(mixed.movedim(1, 3).flatten(3))


class _Layer(nn.Module):
    """Attention and a perceptron with CLIP's quick GELU, each after a layer normalisation and added to its input."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self._thought(x + self.self_attn(self.layer_norm1(x), mask))

    def after(self, x: Tensor, past: tuple[Tensor, Tensor]) -> Tensor:
        """As its attention's."""
        return self._thought(x + self.self_attn.after(self.layer_norm1(x), past))

    def _thought(self, x: Tensor) -> Tensor:
        inner = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(inner * torch.sigmoid(1.702 * inner))


class TextTower(nn.Module):
    """Token ids → one embedding a text (the text encoder of CLIP, Radford et al. 2021).

    It is read off at the token of the highest id, as in CLIP, where that is the end. In vocabularies whose end is 2 it
    is the rarest subword, which tells names apart as well, but hears little of the sentence around them.

    length: the tokens that it reads at most.
    """

    def __init__(
        self, vocabulary: int, width: int, inner: int, layers: int, *, heads: int, dim: int, length: int = MOST_TOKENS
    ) -> None:
        super().__init__()
        self.sizes = {"vocabulary": vocabulary, "width": width, "inner": inner, "layers": layers}
        self.sizes |= {"heads": heads, "dim": dim, "length": length}
        self.dim = dim
        self.text_model = nn.Module()
        self.text_model.embeddings = nn.Module()
        self.text_model.embeddings.token_embedding = nn.Embedding(vocabulary, width)
        self.text_model.embeddings.position_embedding = nn.Embedding(length, width)
        self.text_model.encoder = nn.Module()
        self.text_model.encoder.layers = nn.ModuleList(_Layer(width, inner, heads) for _ in range(layers))
        self.text_model.final_layer_norm = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, dim, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and which of them are no padding (B, L) → (B, D), of any norm."""
        parts, length = self.text_model, ids.shape[1]
        x = parts.embeddings.token_embedding(ids) + parts.embeddings.position_embedding.weight[None, :length]
        seen = None
        if not mask.all():  # without padding the kernel needs no mask, and its last bits are others with one
            before = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
            seen = before[None, None] & mask.bool()[:, None, None]
        for layer in parts.encoder.layers:
            x = layer(x, seen)
        read = parts.final_layer_norm(x)[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
        return self.text_projection(read)

    def begun(self, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Beginnings of texts (U, T) → the keys and values (U, H, T, C / H) of each layer, which any ending reuses."""
        parts = self.text_model
        x = parts.embeddings.token_embedding(ids) + parts.embeddings.position_embedding.weight[None, : ids.shape[1]]
        kept = []
        for layer in parts.encoder.layers:
            kept.append(layer.self_attn.split(layer.layer_norm1(x))[1:])
            x = layer(x, None)
        return kept

    def ended(self, past: Sequence[tuple[Tensor, Tensor]], ids: Tensor) -> Tensor:
        """Endings (U, M, L) of begun texts → embeddings (U, M, D) of the whole texts, of any norm."""
        parts, start = self.text_model, past[0][0].shape[2]
        places = parts.embeddings.position_embedding.weight[start : start + ids.shape[2]]
        x = parts.embeddings.token_embedding(ids) + places
        for layer, own in zip(parts.encoder.layers, past, strict=True):
            x = layer.after(x, own)
        at = ids.argmax(2)[..., None, None].expand(-1, -1, 1, x.shape[-1])
        return self.text_projection(parts.final_layer_norm(x.gather(2, at)[:, :, 0]))
