"""Spaces without models: a picture's vector is its mean colour, a sound's its level in bands, a text's its letters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.media.audio import Waveform
from mmx.spaces.base import Space

DIM = 8


def _spread(rows: Sequence[Sequence[float]], modality: int) -> Tensor:
    """Rows of any width → vectors (B, DIM), those of a modality around one direction, as in real joint spaces."""
    wide = torch.zeros(len(rows), DIM)
    for number, row in enumerate(rows):
        values = torch.tensor(row[: DIM - 3], dtype=torch.float32)
        wide[number, 3 : 3 + len(values)] = values
    wide[:, modality] = 1.0
    return wide


def see(pictures: Sequence[Image.Image]) -> Tensor:
    return _spread([(np.asarray(picture).mean((0, 1)) / 255).tolist() for picture in pictures], 0)


def see_pixels(pixels: Tensor) -> Tensor:
    """As `see`, of (B, 3, H, W) in [0, 1] and with gradients."""
    mean = pixels.mean((2, 3))
    return torch.cat(
        (torch.ones_like(mean[:, :1]), torch.zeros_like(mean[:, :2]), mean, torch.zeros_like(mean[:, :2])), 1
    )


def hear(waves: Sequence[Waveform]) -> Tensor:
    spectra = [np.abs(np.fft.rfft(wave.samples)) for wave in waves]
    return _spread([[float(band.sum() / s.sum()) for band in np.array_split(s, 3)] for s in spectra], 1)


def read(texts: Sequence[str]) -> Tensor:
    colours = ("red", "green", "blue")
    return _spread([[float(colour in text) for colour in colours] + [len(text) / 100] for text in texts], 2)


def look(picture: Image.Image) -> Tensor:
    """The mean colours of 4x4 cells."""
    return F.normalize(torch.stack([see([cell]) for cell in _cells(picture)]).view(4, 4, DIM), dim=-1)


def _cells(picture: Image.Image) -> list[Image.Image]:
    small = picture.resize((64, 64))
    return [small.crop((x, y, x + 16, y + 16)) for y in range(0, 64, 16) for x in range(0, 64, 16)]


def small_space(name: str = "small", without: str = "") -> Space:
    encoders = {"image": see, "sound": hear, "text": read}
    return Space(
        name,
        fingerprint=(name * 64)[:64],
        dim=DIM,
        encoders={modality: encoder for modality, encoder in encoders.items() if modality != without},
        scale={"image": 10.0, "sound": 10.0},
        prompts={"image": ("a {} picture", "{}"), "sound": ("{}",)},
        cells=look,
        pixels=see_pixels,
        labels=("red", "green", "blue", "red and blue"),
    )
