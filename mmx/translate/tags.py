"""Sounds → pictures by way of words: `--bridge tags`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.words_prompt import Prompter, prompter_of
from mmx.bridges.words_tags import TagsBridge
from mmx.decoders.base import Decoder
from mmx.models.store import Located, locate
from mmx.translate.base import Names
from mmx.translate.sound2img import SoundTranslator

SHOWN = "a photo of {}"
BESIDE = 0.5  # of the likeliest tag's share: a second tag that is heard at least so much is shown, too


class TagsTranslator(SoundTranslator):
    """Turns sounds into pictures of the tags that CLAP hears in them. Points are those of CLAP's space."""

    notice: ClassVar[str] = (
        "This bridge goes through words: the picture is of the tags that were heard, and knows nothing else of the sound."
    )

    def __init__(
        self,
        task: str,
        bridge: TagsBridge,
        decoder: Decoder,
        prompter: Prompter,
        *,
        bridge_at: Located,
        decoder_at: Located,
    ) -> None:
        # not that of a trained bridge: there is no spec to hold against the decoder's
        self.task, self.bridge, self.decoder, self.prompter = task, bridge, decoder, prompter  # type: ignore[assignment]
        self.bridge_at, self.decoder_at = bridge_at, decoder_at
        self.rate = bridge.listener.extractor.sampling_rate

    @classmethod
    def open(cls, task: str, names: Names, decoder: Any, decoder_at: Located) -> TagsTranslator:
        """Load CLAP, or the encoder named, and the decoder's own text prior. Raises ModelError."""
        encoder_at = locate(names.encoder or "clap", task, "encoder")
        prompter, _ = prompter_of(decoder, None, decoder_at)
        at = Located("tags", encoder_at.folder)
        ready = cls(task, TagsBridge(Listener.load(encoder_at)), decoder, prompter, bridge_at=at, decoder_at=decoder_at)
        ready.encoder_at = encoder_at
        return ready

    def point(self, waveform) -> Tensor:
        return self.bridge.point(waveform)

    def label_points(self) -> Tensor:
        return self.bridge.points

    @torch.inference_mode()
    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        best = self.bridge.shares(point).topk(min(top, len(self.bridge.tags)))
        return [
            (self.bridge.tags[i], round(p, 4)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def prompt(self, point: Tensor) -> str:
        """What the decoder's text prior is given for a point."""
        (first, share), *others = self.hear(point, 2)
        return SHOWN.format(" and ".join([first, *(name for name, other in others if other >= BESIDE * share)]))

    def sample(self, point: Tensor, generator: torch.Generator) -> Tensor:
        return self.prompter(self.prompt(point), generator)
