"""What each part of a picture is, in the same space as the whole: unit vectors of a grid of cells.

Raw patches of a CLIP prefer the background, so its last layers attend from values to values (CLIP Surgery, Li et al.
2023). A pooling by attention, SigLIP's, is asked for each patch alone; a mean over a feature map, the starter's, is
linear, so that what is done to the mean can be done to every cell.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.decoders.teacher import Teacher, as_pixels

FINER = 2  # times the side at which the teacher's network looks at a whole picture
SURGERY = 6  # last layers that attend from values to values


def teacher_cells(teacher: Teacher, picture: Image.Image) -> Tensor:
    """RGB picture → (H, W, D): the semantic part of each cell; its layout part, which only a whole has, is nothing."""
    net = teacher.net
    stride = 4 * 2 ** (len(net.image_encoder.widths) - 1)  # the stem divides by 4, each later stage by 2
    zoom = FINER * net.sees / math.sqrt(picture.width * picture.height)
    size = [max(1, round(side * zoom / stride)) * stride for side in picture.size]
    pixels = as_pixels(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)).to(teacher.device)
    features = net.image_encoder(pixels[None])[-1].float()
    semantic = F.normalize(net.semantic(features[0].permute(1, 2, 0)).float(), dim=-1)
    return F.pad(semantic, (0, net.dim - semantic.shape[-1])).cpu()


def clip_cells(model: Any, pixels: Tensor) -> Tensor:
    """A CLIPModel and what its processor makes of a picture (1, 3, S, S) → (H, W, D)."""
    tower = model.vision_model
    hidden, seen = tower.pre_layrnorm(tower.embeddings(pixels)), None
    layers = list(tower.encoder.layers)
    for number, layer in enumerate(layers):
        if seen is None and number >= len(layers) - SURGERY:
            seen = hidden
        if seen is not None:
            seen = seen + _by_values(layer.self_attn, layer.layer_norm1(hidden))
        hidden = layer(hidden, attention_mask=None)
    vectors = model.visual_projection(tower.post_layernorm(seen))[0, 1:]
    return _grid(F.normalize(vectors.float(), dim=-1))


def _by_values(attention: Any, hidden: Tensor) -> Tensor:
    """Self-attention whose queries and keys are its values: (1, T, C) → (1, T, C)."""
    values = attention.v_proj(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(values, values, values, scale=attention.scale)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def siglip_cells(model: Any, pixels: Tensor) -> Tensor:
    """A SiglipModel and what its processor makes of a picture (1, 3, S, S) → (H, W, D)."""
    patches = model.vision_model(pixels).last_hidden_state[0]
    return _grid(F.normalize(model.vision_model.head(patches[:, None]).float(), dim=-1))


def _grid(vectors: Tensor) -> Tensor:
    """(P, D) of a square picture → (H, W, D)."""
    side = math.isqrt(len(vectors))
    return vectors.unflatten(0, (side, side)).cpu()


CELLS = {"clip": clip_cells, "siglip": siglip_cells}
