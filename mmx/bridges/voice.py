"""The voice bridge: a recording of a voice → a point of the face feature space, and from there, by the prior, faces."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.base import Bridge, BridgeConfig
from mmx.media.audio import Waveform, tile
from mmx.nets.prior import EmbeddingPrior
from mmx.nets.sound import FRAMES, SAMPLE_RATE, SoundCNN, log_mel, standardise

WINDOWS = 4  # crops of 3 s, spread over up to 10 s of speech, whose features are averaged


class VoiceBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="audio-to-image"):
    """Log-mel of speech → CNN → face feature (Speech2Face, Oh et al., CVPR 2019), then a diffusion prior."""

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        dim = self.spec.shape[-1]
        self.encoder = SoundCNN(dim, tuple(self.config.channels)).to(memory_format=torch.channels_last)
        if self.config.prior is not None:
            self.prior = EmbeddingPrior(dim, dim, **self.config.prior)

    @torch.inference_mode()
    def prepare(self, media: Waveform) -> Tensor:
        """16 kHz mono speech → `WINDOWS` standardised log-mel windows (4, 64, 300). Short speech is tiled."""
        mel = log_mel(torch.from_numpy(tile(media, SAMPLE_RATE * 3).samples))
        starts = torch.linspace(0, mel.shape[-1] - FRAMES, WINDOWS).round().long()
        return torch.stack([standardise(mel[:, start : start + FRAMES]) for start in starts.tolist()])

    def forward(self, features: Tensor) -> Tensor:
        """(B, W, 64, 300) → unit-norm face features (B, D): the mean over the W windows."""
        flat = F.normalize(self.encoder(features.flatten(0, 1)), dim=-1)
        return F.normalize(flat.unflatten(0, features.shape[:2]).mean(1), dim=-1)
