"""Sizes of a projected GAN, and the weights of its terms."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmx.training.decoders.critic import CriticConfig


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes: the generator's own arguments."""

    dim: int = 96
    noise: int = 64
    style: int = 192
    widths: tuple[int, ...] = (256, 128, 96, 64, 16)


@dataclass(frozen=True)
class GanConfig:
    """Sizes, and the weights of the terms."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    side: int = 96  # pixels at which the frozen network looks
    guide: float = 2.0  # the drawn picture's semantic part agrees with the conditioning
    energy: float = 1.0  # features of drawn pictures are distributed as those of the neighbours
    colour: float = 20.0  # mean colours of 4x4 cells
    wrong: float = 0.5  # in the critic: a photo with another's conditioning
    noise: float = 0.5  # the most that is added to a conditioning, in its standard deviations
    plain: float = 0.5  # how often a photo without a concept is drawn, beside one with
    margin: float = 0.6  # of photos that the critic is sure of: above, augmentation grows, below, it shrinks
    patience: int = 200_000  # pictures in which augmentation can go from nothing to its most
