"""The sound bridge: a recording → a point of the joint space, and from there, by the prior, conditionings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.bridges.frontends import Frontend, FrozenVector, LogMel, Wave
from mmx.decoders.base import Decoder
from mmx.device import threads_for
from mmx.errors import ModelError
from mmx.media.audio import Waveform
from mmx.models.store import Located
from mmx.nets.fusion import Fusion
from mmx.nets.lora import AdaptedEncoder
from mmx.nets.prior import EmbeddingPrior
from mmx.nets.sound import SAMPLE_RATE, SoundCNN, SoundTransformer, VectorHead


@dataclass(frozen=True)
class Architecture:
    """What hears, and what turns features into a point.

    frontend: of bridges with a frozen encoder it takes that; voice: whether it hears voices. encoder: its arguments
    are the embedding's size, the fields of a config that `fields` names, and a config's `sizes`.
    """

    frontend: type[LogMel | FrozenVector | Wave]
    encoder: type[nn.Module]
    fields: tuple[str, ...] = ()


ARCHITECTURES = {
    "cnn": Architecture(LogMel, SoundCNN, ("channels", "norm")),
    "transformer": Architecture(LogMel, SoundTransformer),
    "frozen": Architecture(FrozenVector, VectorHead),
    "lora": Architecture(Wave, AdaptedEncoder),
}


class SoundBridge(Bridge, repo_url="https://github.com/mmx", pipeline_tag="audio-to-image"):
    """Log-mel → CNN → joint space (Sound2Scene, Sung-Bin et al., CVPR 2023), then a diffusion prior.

    Instead of the CNN, a transformer, or a head on a frozen pretrained encoder, which `attach` loads.
    """

    voice: ClassVar[bool] = False  # whether what it hears is speech
    rate = SAMPLE_RATE  # Hz, at which it is given sounds

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        dim = self.spec.shape[-1]
        kind = self.config.architecture
        if kind not in ARCHITECTURES:
            raise ModelError(f"this version of mmx knows no {kind} bridge", hint=f"it knows {', '.join(ARCHITECTURES)}")
        self.architecture = ARCHITECTURES[kind]
        fields = {name: getattr(self.config, name) for name in self.architecture.fields}
        self.encoder = self.architecture.encoder(dim, **(fields | self.config.sizes))
        self.looks = "image" in self.config.sources
        if self.looks:
            self.looking, self.fusion = VectorHead(dim, dim), Fusion(dim, 2)
        if self.config.source is None:
            self.frontend = self.architecture.frontend(voice=self.voice)
        if self.config.prior is not None:
            self.prior = EmbeddingPrior(dim, dim, **self.config.prior)

    def attach(self, encoder: Located) -> None:
        listener = Listener.load(encoder)
        require_source(self.config, encoder.name, listener.fingerprint)
        self.use(self.architecture.frontend(listener, voice=self.voice))

    def use(self, frontend: Frontend) -> None:
        super().use(frontend)
        if isinstance(self.encoder, AdaptedEncoder):
            self.encoder.attach(frontend.encoder)

    @property
    def logit_scale(self) -> float:
        """Inverse temperature between points and the texts of labels."""
        return self.config.logit_scale

    def labelled(self, decoder: Decoder) -> tuple[list[str], Tensor | None]:
        """The K labels that it can report having heard, and their texts in the joint space, unit norm (K, D), where
        there are any."""
        texts = list(self.config.labels.values())
        return list(self.config.labels), decoder.teacher.embed_texts(texts) if texts else None

    def point(self, waveform: Waveform, seen: Tensor | None = None) -> Tensor:
        """A waveform → its point (D,) of the joint space, unit norm. seen (1, D): the raw embedding of a picture
        beside it."""
        with threads_for(self, *self.frontend.networks):
            return self(self.prepare(waveform)[None], seen)[0]

    def forward(self, features: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features (B, W, ...) → unit-norm points of the joint space (B, D): the mean over the windows.

        seen (B, D): raw image embeddings of the decoder's teacher, for a bridge that looks, too; without them it only
        hears.
        """
        flat = F.normalize(self.encoder(features.flatten(0, 1)), dim=-1)
        points = F.normalize(flat.unflatten(0, features.shape[:2]).mean(1), dim=-1)
        if not self.looks or seen is None:
            return points
        there = torch.ones(len(points), 2, dtype=torch.bool, device=points.device)
        return self.fused(points, seen, there)

    def fused(self, points: Tensor, seen: Tensor, there: Tensor) -> Tensor:
        """Points of sounds (B, D), raw image embeddings (B, D), and which of them are there (B, 2) → unit-norm points
        (B, D)."""
        return self.fusion(torch.stack((points.float(), self.looking(seen.float()).float()), 1), there)
