"""What a bridge hears of the cached features while it trains: random windows, changed a little."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmx.bridges.frontends import Frontend
from mmx.data.pairs import Rows
from mmx.nets.sound import F_MIN, FLOOR, MELS, SAMPLE_RATE


def mel_centres() -> Tensor:
    """The middle of each mel band, in Hz (HTK's scale: O'Shaughnessy 1987)."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (F_MIN, SAMPLE_RATE / 2))
    return 700 * (10 ** (torch.linspace(low, high, MELS + 2)[1:-1] / 2595) - 1)


MEL_CENTRES = mel_centres()
NARROW = (2500.0, 8000.0)  # Hz: what telephones, old recorders and low rates leave


def crops(frontend: Frontend, sources: Rows, picks: Tensor, places: Tensor) -> Tensor:
    """The part of each picked source (B,) where `places` (B,) in [0, 1) says (B, ...), not finished yet."""
    pairs = zip(picks.tolist(), places.tolist(), strict=True)
    return torch.stack([frontend.crop(sources, pick, place) for pick, place in pairs]).float()


def mixed(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Two log-mels (B, 64, F) heard at the same time, `share` (B,) of the power from the second (mixup)."""
    return torch.log((1 - share)[:, None, None] * first.exp() + share[:, None, None] * second.exp())


def spec_augment(features: Tensor, draws: Tensor, bands: int = 12, frames: int = 60) -> Tensor:
    """Silence one band of mels and one stretch of frames in each item (SpecAugment, Park et al. 2019).

    features (B, M, F); draws (B, 4) in [0, 1): width and start of both.
    """
    _, mels, length = features.shape
    for axis, limit, size in ((1, bands, mels), (2, frames, length)):
        width, start = draws[:, 2 * axis - 2] * limit, draws[:, 2 * axis - 1]
        start = start * (size - width)
        index = torch.arange(size)
        hidden = (index >= start[:, None]) & (index < (start + width)[:, None])
        features = features.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], 0.0)
    return features


def narrow_line(features: Tensor, limits: Tensor) -> Tensor:
    """Log-mels (B, 64, F) as if nothing above `limits` (B,) in Hz had been recorded, at the level that they had."""
    power = (features.exp() - FLOOR).clamp(min=0)
    left = power * (limits[:, None] >= MEL_CENTRES)[:, :, None]
    level = power.sum((1, 2), keepdim=True) / left.sum((1, 2), keepdim=True).clamp(min=FLOOR)
    return torch.log(left * level + FLOOR)


def some_narrow(features: Tensor, draws: Tensor, share: float = 0.25) -> Tensor:
    """A `share` of log-mels (B, 64, F) over a narrow line. draws (B, 2) in [0, 1): whether, and how narrow."""
    limits = NARROW[0] * (NARROW[1] / NARROW[0]) ** draws[:, 1]
    return torch.where(draws[:, 0, None, None] < share, narrow_line(features, limits), features)


def other_room(windows: Tensor, draws: Tensor, colours: Tensor) -> Tensor:
    """The same voice over another line: each log-mel window is coloured, some are cut at telephone band or put in
    noise.

    windows (B, 64, F); draws (B, 2) in [0, 1): depth of the noise, and whether it is a telephone; colours (B, 4),
    normal.
    """
    mels = windows.shape[1]
    at = torch.linspace(0, 1, mels)
    waves = torch.stack([at - 0.5, *(torch.cos(k * torch.pi * at) for k in (1, 2, 3))])
    top = windows.amax((1, 2), keepdim=True)
    floor = top - 5 - 9 * draws[:, 0, None, None]  # nats below the loudest bin: 22 to 61 dB
    noisy = torch.logaddexp(windows + (colours * 0.8 @ waves)[:, :, None], floor.expand_as(windows))
    telephone = (draws[:, 1, None, None] < 0.2) & ((at > 0.72) | (at < 0.06))[None, :, None]
    return torch.where(telephone, noisy.amin((1, 2), keepdim=True), noisy)
