"""Pictures → speech by way of words: `--bridge caption`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from mmx.bridges.words_caption import CaptionBridge
from mmx.models.store import Located, locate
from mmx.nets.writer import Sampling
from mmx.translate.base import Names
from mmx.translate.img2speech import ImageTranslator


class CaptionTranslator(ImageTranslator):
    """Says a picture's caption."""

    notice: ClassVar[str] = "This bridge goes through words: a captioner's text is read out."

    @classmethod
    def open(cls, task: str, names: Names, decoder: Any, decoder_at: Located) -> CaptionTranslator:
        """Load a captioner and a speaker: those named, or BLIP and a VITS. Raises ModelError."""
        encoder_at = locate(names.encoder or "captioner", task, "encoder")
        bridge = CaptionBridge.load(encoder_at, decoder)
        at = Located("caption", encoder_at.folder, encoder_at.companion)
        return cls(task, bridge, decoder, bridge_at=at, decoder_at=decoder_at, encoder_at=encoder_at)

    @property
    def side(self) -> int:
        return self.bridge.side

    def written(
        self, features: Tensor, how: Sampling, generator: torch.Generator
    ) -> tuple[Tensor, list[tuple[str, float]]]:
        text, share = self.bridge.caption(features, how, generator)
        return self.bridge.write(text, generator), [(text, round(share, 4))]
