"""The bridge into a space of points: any source → a point of a decoder's space, and from there, by the prior,
conditionings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.array_frontend import ArrayKind, Arrays
from mmx.bridges.audio_encoders import Listener
from mmx.bridges.base import Bridge, BridgeConfig, require_source
from mmx.bridges.frontends import Frontend, FrozenVector, Image, LogMel, Wave
from mmx.bridges.image_encoders import open_image_encoder
from mmx.bridges.text_encoders import Words, open_text_encoder
from mmx.decoders.base import Decoder
from mmx.device import threads_for
from mmx.errors import ModelError
from mmx.models.store import Located
from mmx.nets.arrays import ArrayCNN, PatchHead
from mmx.nets.fusion import Fusion
from mmx.nets.lora import AdaptedEncoder
from mmx.nets.prior import EmbeddingPrior
from mmx.nets.sound import SoundCNN, SoundTransformer, VectorHead


@dataclass(frozen=True)
class Architecture:
    """What sees or hears, and what turns features into a point.

    frontend: of a bridge's config, its frozen encoder (None without one) and whether it hears voices. opens: reads that
    encoder. encoder: its arguments are the embedding's size, the fields of a config that `fields` names, and a config's
    `sizes`.
    """

    frontend: Callable[[BridgeConfig, Any, bool], Frontend]
    encoder: type[nn.Module]
    fields: tuple[str, ...] = ()
    opens: Callable[[Located], Any] = Listener.load


def _arrays(config: BridgeConfig, encoder: None, voice: bool) -> Arrays:
    if config.array is None:
        raise ModelError("this bridge's config does not say which arrays it takes", hint="mmx train-bridge says it")
    return Arrays(ArrayKind(**config.array))


ARCHITECTURES = {
    "cnn": Architecture(lambda _, __, voice: LogMel(voice=voice), SoundCNN, ("channels", "norm")),
    "transformer": Architecture(lambda _, __, voice: LogMel(voice=voice), SoundTransformer),
    "frozen": Architecture(lambda _, listener, voice: FrozenVector(listener, voice=voice), VectorHead),
    "lora": Architecture(lambda _, listener, voice: Wave(listener, voice=voice), AdaptedEncoder),
    "patches": Architecture(lambda _, looking, __: Image(looking), PatchHead, opens=open_image_encoder),
    "text": Architecture(lambda _, reading, __: Words(reading), VectorHead, opens=open_text_encoder),
    "array": Architecture(_arrays, ArrayCNN, ("channels",)),
}


class PointBridge(Bridge, repo_url="https://github.com/mmx"):
    """Features of any source → encoder → joint space, then a diffusion prior.

    The encoder is a network of its own, or a head on a frozen pretrained encoder, which `attach` loads.
    """

    hears_voices: ClassVar[bool] = False

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__(config)
        dim = self.spec.shape[-1]
        kind = self.config.architecture
        if kind not in ARCHITECTURES:
            raise ModelError(f"this version of mmx knows no {kind} bridge", hint=f"it knows {', '.join(ARCHITECTURES)}")
        self.architecture = ARCHITECTURES[kind]
        fields = {name: getattr(self.config, name) for name in self.architecture.fields}
        self.encoder = self.architecture.encoder(dim, **(fields | self.config.sizes))
        self.voice = self.hears_voices or self.config.sources[0] == "voice"
        self.looks = "image" in self.config.sources[1:]
        if self.looks:
            self.looking, self.fusion = VectorHead(dim, dim), Fusion(dim, 2)
        if self.config.source is None:
            self.frontend = self.architecture.frontend(self.config, None, self.voice)
        if self.config.prior is not None:
            self.prior = EmbeddingPrior(dim, dim, **self.config.prior)

    def attach(self, encoder: Located) -> None:
        frozen = self.architecture.opens(encoder)
        require_source(self.config, encoder.name, frozen.fingerprint)
        self.use(self.architecture.frontend(self.config, frozen, self.voice))

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

    def point(self, medium: Any, seen: Tensor | None = None) -> Tensor:
        """A source medium → its point (D,) of the joint space, unit norm. seen (1, D): the raw embedding of a picture
        beside it."""
        with threads_for(self, *self.frontend.networks):
            return self(self.prepare(medium)[None], seen)[0]

    def forward(self, features: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features (B, W, ...) → unit-norm points of the joint space (B, D): the mean over the windows.

        seen (B, D): raw image embeddings of the decoder's teacher, for a bridge with two sources; without them there
        is one.
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
