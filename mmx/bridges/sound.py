"""The sound bridge: a recording → a point of the joint space, and from there, by the prior, conditionings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.errors import ModelError
from mmx.media.audio import Waveform, resample, tile
from mmx.models.store import Located
from mmx.nets.fusion import Fusion
from mmx.nets.lora import AdaptedEncoder
from mmx.nets.prior import EmbeddingPrior
from mmx.nets.sound import FRAMES, HOP, SAMPLE_RATE, SoundCNN, SoundTransformer, VectorHead, log_mel, standardise

# what turns features into a point: the embedding's size and a config's `sizes` are its arguments
ENCODERS: dict[str, type[nn.Module]] = {
    "cnn": SoundCNN,
    "transformer": SoundTransformer,
    "frozen": VectorHead,
    "lora": AdaptedEncoder,
}
SECONDS = 3  # of a window


class SoundBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="audio-to-image"):
    """Log-mel → CNN → joint space (Sound2Scene, Sung-Bin et al., CVPR 2023), then a diffusion prior.

    Instead of the CNN, a transformer, or a head on a frozen pretrained encoder, which `attach` loads.
    """

    windows: ClassVar[int] = 3  # crops of 3 s, spread over the clip, whose embeddings are averaged

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        dim = self.spec.shape[-1]
        kind = self.config.architecture
        if kind not in ENCODERS:
            raise ModelError(f"this version of mmx knows no {kind} bridge", hint=f"it knows {', '.join(ENCODERS)}")
        sizes = {"channels": tuple(self.config.channels)} if kind == "cnn" else {}
        self.encoder = ENCODERS[kind](dim, **(sizes | self.config.sizes))
        if kind == "cnn":
            self.encoder.to(memory_format=torch.channels_last)
        self.looks = "image" in self.config.sources
        if self.looks:
            self.looking, self.fusion = VectorHead(dim, dim), Fusion(dim, 2)
        self.listener: Any = None
        if self.config.prior is not None:
            self.prior = EmbeddingPrior(dim, dim, **self.config.prior)

    def attach(self, encoder: Located) -> None:
        from mmx.bridges.audio_encoders import Listener

        listener = Listener.load(encoder)
        require_source(self.config, encoder.name, listener.fingerprint)
        self.hear_with(listener)

    def hear_with(self, listener: Any) -> None:
        """Take a frozen encoder. It is neither saved, nor trained, nor counted."""
        object.__setattr__(self, "listener", listener)
        if self.config.architecture == "lora":
            self.encoder.attach(listener)

    @torch.inference_mode()
    def prepare(self, media: Waveform) -> Tensor:
        """A 16 kHz mono waveform → standardised log-mel windows (W, 64, 300), or a frozen encoder's vector (1, C), or windows of
        the waveform itself (W, T) for an adapted one.

        Short sounds are tiled.
        """
        wave = tile(media, SAMPLE_RATE * 3)
        if self.config.architecture == "frozen":
            assert self.listener is not None, "attach comes first"
            return self.listener.listen(wave)[None]
        if self.config.architecture == "lora":
            assert self.listener is not None, "attach comes first"
            return self.stretches_of(torch.from_numpy(resample(wave.samples, wave.sample_rate, self.listener.rate)))
        return self.windows_of(log_mel(torch.from_numpy(wave.samples)))

    def windows_of(self, mel: Tensor) -> Tensor:
        """A log-mel (64, F) → standardised windows (W, 64, 300), evenly spread."""
        starts = torch.linspace(0, mel.shape[-1] - FRAMES, self.windows).round().long()
        return torch.stack([standardise(mel[:, start : start + FRAMES]) for start in starts.tolist()])

    def stretches_of(self, samples: Tensor) -> Tensor:
        """A waveform (T,) → windows of 3 s (W, N), evenly spread."""
        length = SECONDS * self.listener.rate
        starts = torch.linspace(0, max(0, len(samples) - length), self.windows).round().long().tolist()
        return torch.stack([F.pad(cut, (0, length - len(cut))) for cut in (samples[s : s + length] for s in starts)])

    def forward(self, features: Tensor, seconds: Tensor | None = None) -> Tensor:
        """Windows (B, W, 64, 300) or vectors (B, 1, C) → unit-norm points of the joint space (B, D): the mean over them.

        seconds (B, D): raw image embeddings of the decoder's teacher, for a bridge that looks, too; without them it only hears.
        """
        flat = F.normalize(self.encoder(features.flatten(0, 1)), dim=-1)
        points = F.normalize(flat.unflatten(0, features.shape[:2]).mean(1), dim=-1)
        if not self.looks or seconds is None:
            return points
        there = torch.ones(len(points), 2, dtype=torch.bool, device=points.device)
        return self.fused(points, seconds, there)

    def fused(self, points: Tensor, seconds: Tensor, there: Tensor) -> Tensor:
        """Points of sounds (B, D), raw image embeddings (B, D), and which of them are there (B, 2) → unit-norm points (B, D)."""
        return self.fusion(torch.stack((points.float(), self.looking(seconds.float()).float()), 1), there)


assert HOP * FRAMES == SAMPLE_RATE * 3
