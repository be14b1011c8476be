"""Pictures → speech by way of words: `--bridge caption`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from mmx.bridges.caption import CaptionBridge
from mmx.decoders.base import Decoder
from mmx.store import Located
from mmx.translators.base import Translation, generator_for
from mmx.translators.sight import SightTranslator, how_to_write


class CaptionTranslator(SightTranslator):
    """Says a picture's caption."""

    notice: ClassVar[str] = "This bridge goes through words: a captioner's text is read out."

    def __init__(
        self, task: str, bridge: CaptionBridge, decoder: Decoder, *, bridge_at: Located, decoder_at: Located
    ) -> None:
        # not that of a trained bridge: there is no spec to hold against the decoder's
        self.task, self.bridge, self.decoder = task, bridge, decoder  # type: ignore[assignment]
        self.bridge_at, self.decoder_at = bridge_at, decoder_at

    @torch.inference_mode()
    def translate(
        self,
        picture: Image.Image | Sequence[Image.Image],
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        beam: int | None = None,
        temperature: float | None = None,
        top_p: float = 0.9,
        speed: float = 1.0,
        voice: str | None = None,
    ) -> Translation:
        """As of a trained bridge; what is searched or drawn is the caption."""
        started = time.perf_counter()
        picture = picture if isinstance(picture, Image.Image) else next(iter(picture))
        features = self.bridge.prepare(picture)
        heard: list[tuple[str, float]] = []
        units: list[Any] = []
        for index in indices:
            generator = generator_for(seed, index)
            text, share = self.bridge.caption(features, how_to_write(index, beam, temperature, top_p), generator)
            heard.append((text, round(share, 4)))
            units.append(self.bridge.write(text, generator))
        written = time.perf_counter()
        media = self.decoder.decode(units, voice=voice, speed=speed)
        seconds = {"bridge": written - started, "decode": time.perf_counter() - written}
        return Translation(media, heard, seconds, units, [[one] for one in heard])
