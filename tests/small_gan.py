"""A GAN of a few thousand weights on eight coloured pictures, seen by an EfficientNet of random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.decoders.base import freeze
from mmx.decoders.teacher import Teacher
from mmx.training.decoders.axes import colour_axes
from mmx.training.decoders.critic import CriticConfig
from mmx.training.decoders.gan import GanTask
from mmx.training.decoders.gan_config import GanConfig, GeneratorConfig
from mmx.training.decoders.gaze import Conditioned, Gaze, NameSight, neighbours
from mmx.training.decoders.space import SpaceConfig, build_space, to_pixels
from mmx.training.engine.loop import LoopConfig
from mmx.training.teachers.efficientnet import EfficientNet
from mmx.training.teachers.features import pooled

SIZE, SEMANTIC, LAYOUT = 16, 4, 8
CONFIG = GanConfig(
    GeneratorConfig(dim=SEMANTIC + LAYOUT, noise=4, style=16, widths=(16, 16, 8), refined=0),
    CriticConfig(dim=SEMANTIC + LAYOUT, widths=(8, 8, 8, 8), match=4),
    side=32,
    guide=2.0,
    colour=300.0,  # a network of random weights hands on much larger gradients than one that sees
    noise=0.2,
)
LOOP = LoopConfig(
    40, 8, 1e-2, warmup=1, weight_decay=0.0, betas=(0.0, 0.99), clip_norm=float("inf"), ema=0.5, bf16=False,
    validate_steps=1000, lr_scales=(("critic.", 0.5),),
)  # fmt: skip


SPACE = SpaceConfig(
    dim=SEMANTIC + LAYOUT, image_size=SIZE, hidden_sizes=(8, 8), depths=(1, 1), text_width=16, text_layers=1,
    semantic_dim=SEMANTIC, layout_cells=2,
)  # fmt: skip


def random_efficientnet() -> EfficientNet:
    torch.manual_seed(0)
    net = EfficientNet()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    return freeze(net)


def coloured_photos(count: int = 8) -> Photos:
    """Pictures whose upper and lower halves are of other colours, of two synsets."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 256, (count, 2, 1, 1, 3), generator=generator)
    halves = colours.expand(count, 2, SIZE // 2, SIZE, 3).reshape(count, SIZE, SIZE, 3)
    noisy = halves + torch.randint(-20, 20, halves.shape, generator=generator)
    names = ("dog", "cat")
    meta = [
        {"key": str(k), "synset": names[k % 2], "words": names[k % 2], "concept": names[k % 2]} for k in range(count)
    ]
    return Photos(noisy.clamp(0, 255).byte(), meta)


def layouts(pixels: Tensor) -> Tensor:
    """(N, 3, S, S) → the layout part (N, LAYOUT), of its share of the norm."""
    weight, bias = colour_axes(to_pixels(coloured_photos().pixels), 2, LAYOUT)
    part = F.linear(F.adaptive_avg_pool2d(pixels, 2).flatten(1), weight, bias)
    return F.normalize(part, dim=1) * LAYOUT**0.5


def small_task(config: GanConfig = CONFIG) -> GanTask:
    net, photos = random_efficientnet(), coloured_photos()
    pixels = to_pixels(photos.pixels)
    labels = torch.arange(len(photos)) % 2
    semantic = torch.eye(SEMANTIC)[labels] * SEMANTIC**0.5
    embeds = torch.stack([torch.cat((semantic, layouts(x)), 1) for x in (pixels, pixels.flip(3))])
    features = pooled(net, photos.pixels, 32)
    data = Conditioned(photos, embeds, SEMANTIC, labels, neighbours(features, labels), torch.ones(len(photos)))
    gaze = Gaze(net, photos, config.critic, config.side)
    return GanTask(data, data, gaze, NameSight(gaze, data, data, features), config)


def small_teacher() -> Teacher:
    from mmx.data.captions import train_tokenizer

    reader = train_tokenizer(["a photo of a dog", "a photo of a cat"] * 3, vocab_size=320)
    torch.manual_seed(0)
    net = build_space(SPACE, len(reader))
    net.layout.weight.data, net.layout.bias.data = colour_axes(to_pixels(coloured_photos().pixels), 2, LAYOUT)
    return Teacher(net, reader)
