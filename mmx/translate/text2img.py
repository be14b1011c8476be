"""Texts → pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from mmx.bridges.points import PointBridge
from mmx.bridges.words_prompt import Prompter, prompter_of
from mmx.decoders.horizon import FAR
from mmx.media.texts import text_of
from mmx.models.store import Located, locate
from mmx.translate.base import Excerpt, Names, Translation, Translator, generator_for


class TextTranslator(Translator):
    """Turns texts into pictures, through the prior and decoder that sounds drive, too (DALL-E 2, Ramesh et al.
    2022)."""

    options = ("steps", "guidance", "size")

    @classmethod
    def open(cls, task: str, names: Names, decoder: Any, decoder_at: Located) -> TextTranslator:
        """Find the prior: the decoder's own, or that of the bridge named; or the bridge, where it is one from texts.
        Raises ModelError."""
        if names.bridge is not None:
            at = locate(names.bridge, task, "bridge")
            own = PointBridge.load(at.folder)
            if own.config.sources[0] == "text":
                own.require(decoder, at.name)
                encoder_at = locate(names.encoder, task, "encoder")
                own.attach(encoder_at)
                prompter = Prompter(lambda text, draw: own.sample(own.point(text), draw))
                return cls(task, prompter, decoder, bridge_at=at, decoder_at=decoder_at, encoder_at=encoder_at)
        prompter, bridge_at = prompter_of(decoder, names.bridge, decoder_at)
        return cls(task, prompter, decoder, bridge_at=bridge_at, decoder_at=decoder_at)

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> str:
        """A text or its bytes → the text in one line. Raises InputError."""
        return text_of(source, name or "text")

    def notes(self, name: str, medium: str) -> list[str]:
        """That the picture is a guess, where the text is about nothing that the space knows."""
        far = self.decoder.teacher.are_far([medium])[0]
        return [*super().notes(name, medium), *([f"{name}: {FAR}"] if far else [])]

    @torch.inference_mode()
    def translate(
        self,
        text: str | Sequence[str],
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> Translation:
        """One text → a picture for each of `indices`."""
        started = time.perf_counter()
        text = text if isinstance(text, str) else ", ".join(text)
        generators = [generator_for(seed, index) for index in indices]
        conditioning = torch.stack([self.bridge(text, generator) for generator in generators])
        bridged = time.perf_counter()
        media = self.decoder.decode(conditioning, generators=generators, steps=steps, guidance=guidance, size=size)
        return Translation(media, [], {"bridge": bridged - started, "decode": time.perf_counter() - bridged})
