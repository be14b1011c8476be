"""What the cache holds of target media, which the frozen decoder computes once; what it holds of sources is in
`mmx.bridges.frontends`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmx.bridges.frontends import MAX_SECONDS, plain_and_mirrored
from mmx.decoders.base import Decoder
from mmx.errors import InputError
from mmx.media.audio import read_audio
from mmx.nets.sound import SAMPLE_RATE


class Embeddings:
    """Pictures → the targets of an image or face decoder: raw embeddings (2, D) float16, plain and mirrored."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.name = f"targets-{decoder.spec.fingerprint[:16]}"
        self.empty = torch.zeros(0, decoder.spec.shape[0], dtype=torch.float16)

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        return plain_and_mirrored(payloads, names, self.decoder.targets, torch.device(self.decoder.device))


class Units:
    """Speech → discrete units (L,) int16 of a speech decoder."""

    empty = torch.zeros(0, dtype=torch.int16)

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.name = f"units-{decoder.spec.fingerprint[:16]}"

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for payload, name in zip(payloads, names, strict=True):
            try:
                wave = read_audio(payload, sample_rate=SAMPLE_RATE, name=name, duration=MAX_SECONDS)
                found.append(self.decoder.targets([wave])[0].short().cpu())
            except InputError:
                found.append(None)
        return found
