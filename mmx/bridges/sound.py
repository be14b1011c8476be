"""The sound bridge: a recording → a point of the joint space, and from there, by the prior, conditionings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.base import Bridge, BridgeConfig
from mmx.media.audio import Waveform, tile
from mmx.nets.prior import EmbeddingPrior
from mmx.nets.sound import FRAMES, HOP, SAMPLE_RATE, SoundCNN, log_mel, standardise


class SoundBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="audio-to-image"):
    """Log-mel → CNN → joint space (Sound2Scene, Sung-Bin et al., CVPR 2023), then a diffusion prior."""

    windows: ClassVar[int] = 3  # crops of 3 s, spread over the clip, whose embeddings are averaged

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        dim = self.spec.shape[-1]
        self.encoder = SoundCNN(dim, tuple(self.config.channels)).to(memory_format=torch.channels_last)
        if self.config.prior is not None:
            self.prior = EmbeddingPrior(dim, dim, **self.config.prior)

    @torch.inference_mode()
    def prepare(self, media: Waveform) -> Tensor:
        """A 16 kHz mono waveform → standardised log-mel windows (W, 64, 300). Short sounds are tiled."""
        samples = torch.from_numpy(tile(media, SAMPLE_RATE * 3).samples)
        mel = log_mel(samples)
        starts = torch.linspace(0, mel.shape[-1] - FRAMES, self.windows).round().long()
        return torch.stack([standardise(mel[:, start : start + FRAMES]) for start in starts.tolist()])

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, 64, 300) → unit-norm points of the joint space (B, D): the mean over the W windows."""
        flat = self.encoder(features.flatten(0, 1))
        return F.normalize(F.normalize(flat, dim=-1).unflatten(0, features.shape[:2]).mean(1), dim=-1)


assert HOP * FRAMES == SAMPLE_RATE * 3
