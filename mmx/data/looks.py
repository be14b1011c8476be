"""How photos look, measured: colours, brightness, warmth and detail, and the words for them."""

from __future__ import annotations

import torch
from torch import Tensor

# word → where a photo's mean colour lies: lightness, red over green, yellow over blue; in standard deviations of photos
COLOURS = {
    "red": (-0.3, 2.5, 0.8),
    "orange": (0.0, 2.0, 2.0),
    "yellow": (1.2, 0.2, 2.2),
    "green": (-0.2, -2.2, 0.9),
    "blue": (0.0, -0.6, -2.2),
    "purple": (-0.5, 1.2, -2.0),
    "pink": (1.0, 1.8, -0.6),
    "brown": (-0.8, 0.9, 0.9),
    "grey": (-0.2, -0.3, -0.6),
    "white": (2.5, -0.2, -0.4),
    "black": (-2.4, -0.3, -0.5),
}
# word → what of a photo is to be great: lightness, red over green, yellow over blue, detail
TONES = {
    "light": (1.0, 0.0, 0.0, 0.0),
    "dark": (-1.0, 0.0, 0.0, 0.0),
    "warm": (0.0, 0.7, 0.7, 0.0),
    "cold": (0.0, -0.4, -0.9, 0.0),
    "busy": (0.0, 0.0, 0.0, 1.0),
    "plain": (0.0, 0.0, 0.0, -1.0),
}
LOOKS = (*COLOURS, *TONES)
# other words for a look
SAID = {
    "grey": ("grey", "gray"),
    "purple": ("purple", "violet"),
    "light": ("light", "bright"),
    "warm": ("warm", "warmly coloured"),
    "cold": ("cold", "cool"),
    "busy": ("busy", "cluttered", "detailed"),
    "plain": ("plain", "simple"),
}


def measured(pixels: Tensor) -> Tensor:
    """Photos (N, S, S, 3) uint8 → (N, 4): lightness, red over green, yellow over blue, detail: the mean step between
    neighbouring pixels."""
    rows = []
    for part in pixels.split(2048):
        part = part.float()
        red, green, blue = part.mean((1, 2)).unbind(1)
        detail = (part.diff(dim=1).abs().mean((1, 2, 3)) + part.diff(dim=2).abs().mean((1, 2, 3))).sqrt()
        light = 0.299 * red + 0.587 * green + 0.114 * blue
        rows.append(torch.stack((light, red - green, (red + green) / 2 - blue, detail), 1))
    return torch.cat(rows)


class Looks:
    """Scores photos by the words of LOOKS, relative to the photos that it was made of."""

    def __init__(self, pixels: Tensor) -> None:
        found = measured(pixels)
        self.mean, self.std = found.mean(0), found.std(0) + 1e-6

    def standard(self, pixels: Tensor) -> Tensor:
        """Photos (N, S, S, 3) uint8 → what was measured of them (N, 4), in standard deviations."""
        return (measured(pixels) - self.mean) / self.std

    def scores(self, pixels: Tensor) -> Tensor:
        """Photos (N, S, S, 3) uint8 → how well each word of LOOKS is said of them (N, words), more is better."""
        found = self.standard(pixels)
        colours = -torch.cdist(found[:, :3], torch.tensor(list(COLOURS.values())))
        return torch.cat((colours, found @ torch.tensor(list(TONES.values())).T), 1)
