"""Sounds → pictures by way of words: `--bridge tags`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.words_prompt import prompter_of
from mmx.bridges.words_tags import SHOWN, TagsBridge
from mmx.errors import ModelError
from mmx.models.store import Located, locate
from mmx.translate.base import Names, generator_for
from mmx.translate.sound2img import SoundTranslator


class TagsTranslator(SoundTranslator):
    """Turns sounds into pictures of the tags that CLAP hears in them."""

    notice: ClassVar[str] = (
        "This bridge goes through words: the picture is of the tags that were heard, and knows nothing else of the "
        "sound."
    )

    @classmethod
    def open(cls, task: str, names: Names, decoder: Any, decoder_at: Located) -> TagsTranslator:
        """Load CLAP, or the encoder named, and the decoder's own text prior. Raises ModelError."""
        encoder_at = locate(names.encoder or "clap", task, "encoder")
        prompter, _ = prompter_of(decoder, None, decoder_at)
        bridge, at = TagsBridge(Listener.load(encoder_at), prompter), Located("tags", encoder_at.folder)
        return cls(task, bridge, decoder, bridge_at=at, decoder_at=decoder_at, encoder_at=encoder_at)

    def nameable(self, concepts: Sequence[str]) -> list[str]:
        return list(concepts)  # CLAP can be asked for any

    def texts_of(self, labels: Sequence[str]) -> list[str]:
        return [SHOWN.format(label) for label in labels]

    def text_points(self, labels: Sequence[str]) -> Tensor:
        return self.bridge.points_of(labels)

    def direction(self, medium: Any) -> Tensor:
        """As of every sound; CLAP's space has no pictures: raises ModelError."""
        if isinstance(medium, Image.Image):
            raise ModelError("this bridge hears and reads, and sees nothing", hint="give --plus and --minus a text")
        return super().direction(medium)

    def point_of_text(self, text: str) -> Tensor:
        return self.bridge.points_of([text])[0]

    @torch.inference_mode()
    def text_conditioning(self, label: str, seed: int, index: int) -> tuple[Tensor, torch.Generator]:
        generator = generator_for(seed, index)
        return self.bridge.prompter(SHOWN.format(label), generator), generator

    def among_targets(self, point: Tensor, seed: int, index: int) -> Tensor:
        """What is drawn for it: the point itself lies in CLAP's space, and the targets in the decoder's."""
        return self.conditioning(point, seed, index)[0]
