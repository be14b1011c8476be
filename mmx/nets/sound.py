"""Log-mel features and the small CNN that reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.compat import torchaudio
from mmx.media.formats import SAMPLE_RATE

HOP = 160  # samples: 10 ms, 100 frames a second
WINDOW = 400  # samples: 25 ms
FFT = 512
MELS = 64
FRAMES = 300  # 3 s: what the CNN reads at once


LEVEL = 0.1  # root mean square of full scale to which every clip is brought
FLOOR = 1e-6  # power below the logarithm
F_MIN = 40.0  # Hz: the lower end of the lowest mel band
SILENT_BELOW = 20.0  # Hz: what no ear hears is taken out before; between here and F_MIN it fades in
GROUPS = 8  # of channels that are normalised together, at most


@lru_cache(maxsize=1)
@torch.inference_mode(False)  # whoever asks first: it serves training, too
def _mel() -> nn.Module:
    # not a part of any module: its tables follow from the constants above, and must not be stored, halved or trained
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE, n_fft=FFT, win_length=WINDOW, hop_length=HOP, n_mels=MELS, f_min=F_MIN
    )


def audible(samples: Tensor) -> Tensor:
    """Waveform (..., T) at 16 kHz without what lies below hearing: a recorder's offset, wind, handling, traffic.

    The window of a spectrogram is too short to keep that out of the lowest bands, and it would set the clip's level.
    """
    length = samples.shape[-1]
    padded = 1 << (length + SAMPLE_RATE - 1).bit_length()  # zeros behind, so that the end does not meet the beginning
    hertz = torch.fft.rfftfreq(padded, 1 / SAMPLE_RATE, device=samples.device)
    share = ((hertz - SILENT_BELOW) / (F_MIN - SILENT_BELOW)).clamp(0, 1)
    kept = torch.fft.rfft(samples, padded) * (0.5 - 0.5 * torch.cos(math.pi * share))
    return torch.fft.irfft(kept, padded)[..., :length]


def log_mel(samples: Tensor) -> Tensor:
    """Waveform (..., T) at 16 kHz → log-mel (..., 64, T // 160 + 1), natural log of power, whatever the clip's level.

    Each clip is brought to one level first, so that the floor under the logarithm lies equally deep below all of them;
    what no ear hears has no part in it.
    """
    samples = audible(samples)
    level = samples.square().mean(-1, keepdim=True).sqrt()
    return torch.log(_mel()(samples * (LEVEL / (level + 1e-9))) + FLOOR)


def standardise(features: Tensor) -> Tensor:
    """Zero mean and unit variance over each clip's (mels, frames): without it most of the accuracy is lost."""
    mean = features.mean((-2, -1), keepdim=True)
    return (features - mean) / (features.std((-2, -1), keepdim=True) + 1e-3)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu and He 2018): of each item alone, so that neither a batch nor other processes matter."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": group_norm}


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            NORMS[norm](outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            NORMS[norm](outputs),
            nn.SiLU(),
        )


def pooled_head(width: int, dim: int, dropout: float) -> nn.Sequential:
    """Pooled channels (B, width) → embedding (B, dim), by one hidden layer."""
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(width, width * 2), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width * 2, dim)
    )


class SoundCNN(nn.Module):
    """Standardised log-mel (B, 64, 300) → embedding (B, D), any norm. Mean and max over time, as in PANNs (Kong et al.
    2020).

    norm: a key of NORMS.
    """

    def __init__(
        self, dim: int, channels: Sequence[int] = (32, 64, 128, 256), dropout: float = 0.2, norm: str = "batch"
    ) -> None:
        super().__init__()
        sizes = (1, *channels)
        self.blocks = nn.ModuleList(_Block(a, b, 2 if a == 1 else 1, norm) for a, b in pairwise(sizes))
        self.head = pooled_head(channels[-1], dim, dropout)
        self.to(memory_format=torch.channels_last)

    def _heard(self, features: Tensor) -> Tensor:
        """(B, 64, 300) → (B, C, frames / 32)."""
        x = features[:, None].contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = F.avg_pool2d(block(x), 2)
        return x.mean(2)  # over mels

    def tokens(self, features: Tensor) -> Tensor:
        """(B, 64, 300) → what each stretch of time is like (B, P, C)."""
        return self._heard(features).transpose(1, 2)

    def pooled(self, features: Tensor) -> Tensor:
        """(B, 64, 300) → what the head reads (B, C)."""
        x = self._heard(features)
        return x.mean(-1) + x.amax(-1)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.pooled(features))


class SoundTransformer(nn.Module):
    """Standardised log-mel (B, 64, 300) → embedding (B, D), by a transformer over patches of 16 mels by 10 frames
    (AST, Gong et al. 2021), the mean of whose outputs is read."""

    def __init__(self, dim: int, width: int = 192, depth: int = 4, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, (16, 10), (16, 10))
        self.places = nn.Parameter(torch.randn(MELS // 16 * FRAMES // 10, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, dim)

    def tokens(self, features: Tensor) -> Tensor:
        """(B, 64, 300) → what each patch is like (B, P, width)."""
        return self.layers(self.patches(features[:, None]).flatten(2).transpose(1, 2) + self.places)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.tokens(features).mean(1))


class VectorHead(nn.Module):
    """One vector (B, C) of a frozen encoder → embedding (B, D)."""

    def __init__(self, dim: int, inputs: int, width: int = 1024, dropout: float = 0.2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, dim)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)
