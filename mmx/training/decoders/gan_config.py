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
    widths: tuple[int, ...] = (384, 192, 96, 64, 16)
    refined: int = 4
    period: int = 0

    @property
    def size(self) -> int:
        """Pixels a side of what is drawn."""
        return 4 << (len(self.widths) - 1)


@dataclass(frozen=True)
class GanConfig:
    """Sizes, and the weights of the terms."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    side: int = 96  # pixels at which the frozen network looks
    guide: float = 8.0  # the drawn picture's semantic part agrees with the conditioning
    energy: float = 1.0  # features of drawn pictures are distributed as those of the neighbours
    colour: float = 20.0  # mean colours of cells
    cells: int = 4  # a side
    crop: float = 1.0  # the least part of a side that the critic sees of a picture
    wrong: float = 0.5  # in the critic: a photo with another's conditioning
    noise: float = 0.5  # the most that is added to a conditioning, in its standard deviations
    plain: float = 0.5  # how often a photo without a concept is drawn, beside one with; of faces all have none
    margin: float = 0.6  # of photos that the critic is sure of: above, augmentation grows, below, it shrinks
    patience: int = 200_000  # pictures in which augmentation can go from nothing to its most


FACES = GanConfig(
    GeneratorConfig(dim=256, style=256, widths=(256, 160, 96, 64, 32, 16), refined=3, period=8),
    CriticConfig(dim=256),
    guide=4.0,
    cells=8,
    crop=0.75,  # seen at 96 pixels, so that 128 are judged pixel by pixel, too
    noise=0.3,
)
SIZES = {"image": GanConfig(), "face": FACES}
