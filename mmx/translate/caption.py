"""Pictures → speech by way of words: `--bridge caption`."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mmx.bridges.words_caption import CaptionBridge
from mmx.decoders.base import Decoder
from mmx.models.store import Located
from mmx.nets.writer import Sampling
from mmx.translate.img2speech import SightTranslator


class CaptionTranslator(SightTranslator):
    """Says a picture's caption."""

    notice: ClassVar[str] = "This bridge goes through words: a captioner's text is read out."

    def __init__(
        self, task: str, bridge: CaptionBridge, decoder: Decoder, *, bridge_at: Located, decoder_at: Located
    ) -> None:
        # not that of a trained bridge: there is no spec to hold against the decoder's
        self.task, self.bridge, self.decoder = task, bridge, decoder  # type: ignore[assignment]
        self.bridge_at, self.decoder_at = bridge_at, decoder_at

    def written(
        self, features: Tensor, how: Sampling, generator: torch.Generator
    ) -> tuple[Tensor, list[tuple[str, float]]]:
        text, share = self.bridge.caption(features, how, generator)
        return self.bridge.write(text, generator), [(text, round(share, 4))]
