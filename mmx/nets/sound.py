"""Log-mel features and the small CNN that reads them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.compat import torchaudio

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples: 10 ms, 100 frames a second
WINDOW = 400  # samples: 25 ms
FFT = 512
MELS = 64
FRAMES = 300  # 3 s: what the CNN reads at once


class LogMel(nn.Module):
    """Waveform (..., T) at 16 kHz → log-mel (..., 64, T // 160 + 1), natural log of power, whatever the clip's level.

    Each clip is brought to one level first, so that the floor under the logarithm lies equally deep below all of them.
    """

    LEVEL = 0.1  # root mean square of full scale
    FLOOR = 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE, n_fft=FFT, win_length=WINDOW, hop_length=HOP, n_mels=MELS, f_min=40.0
        )
        self.mel.requires_grad_(False)

    def forward(self, samples: Tensor) -> Tensor:
        level = samples.square().mean(-1, keepdim=True).sqrt()
        return torch.log(self.mel(samples * (self.LEVEL / (level + 1e-9))) + self.FLOOR)


def standardise(log_mel: Tensor) -> Tensor:
    """Zero mean and unit variance over each clip's (mels, frames): without it most of the accuracy is lost."""
    mean = log_mel.mean((-2, -1), keepdim=True)
    return (log_mel - mean) / (log_mel.std((-2, -1), keepdim=True) + 1e-3)


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
        )


class SoundCNN(nn.Module):
    """Standardised log-mel (B, 64, 300) → embedding (B, D), any norm. Mean and max over time, as in PANNs (Kong et al. 2020)."""

    def __init__(self, dim: int, channels: tuple[int, ...] = (32, 64, 128, 256), dropout: float = 0.2) -> None:
        super().__init__()
        sizes = (1, *channels)
        self.blocks = nn.ModuleList(_Block(a, b, 2 if a == 1 else 1) for a, b in pairwise(sizes))
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels[-1], channels[-1] * 2),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(channels[-1] * 2, dim),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        x = log_mel[:, None].contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = F.avg_pool2d(block(x), 2)
        x = x.mean(2)  # over mels: (B, C, frames / 32)
        return self.head(x.mean(-1) + x.amax(-1))
