"""Pictures → speech."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.image import ImageBridge
from mmx.media.image import read_image, to_rgb
from mmx.nets.writer import Sampling
from mmx.translate.base import Excerpt, Translation, Translator, generator_for

CANDIDATES = 32  # chosen on val


class ImageTranslator(Translator):
    """Turns a picture into speech about it, with no text in between."""

    bridge_kind = ImageBridge
    options = ("beam", "temperature", "top_p", "speed", "voice")

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Image.Image:
        """A path, bytes or a picture → RGB. Raises InputError, always for a picture that is cut short."""
        if isinstance(source, Image.Image):
            return to_rgb(source)
        return read_image(source, name=name)

    @property
    def side(self) -> int:
        """Pixels of a side of the pictures that its bridge looks at."""
        return self.bridge.frontend.encoder.size

    def notes(self, name: str, picture: Image.Image) -> list[str]:
        found = super().notes(name, picture)
        if all(low == high for low, high in picture.getextrema()):
            found.append(f"{name}: one flat colour; what is said of it means nothing")
        return found

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
        """One picture → an utterance (16 kHz) for each of `indices`.

        The first is the likeliest of CANDIDATES that are drawn, or, with `beam`, that a search of this width finds;
        the others are drawn at a temperature of 0.8. With a `temperature` all are drawn; 0 takes the likeliest unit
        each time. speed: 2 is twice as fast.
        """
        started = time.perf_counter()
        picture = picture if isinstance(picture, Image.Image) else next(iter(picture))
        features = self.bridge.prepare(picture)
        units, words = [], []
        for index in indices:
            how = how_to_write(index, beam, temperature, top_p)
            own, said = self.written(features, how, generator_for(seed, index))
            units.append(own)
            words.append(said)
        written = time.perf_counter()
        media = self.decoder.decode(units, voice=voice, speed=speed)
        seconds = {"bridge": written - started, "decode": time.perf_counter() - written}
        return Translation(media, [word for said in words for word in said], seconds, units, words)

    def written(
        self, features: Tensor, how: Sampling, generator: torch.Generator
    ) -> tuple[Tensor, list[tuple[str, float]]]:
        """Features of a picture → units (L,), and the words that they were made from, if any were."""
        return self.bridge.write(features, how, generator), []


def how_to_write(index: int, beam: int | None, temperature: float | None, top_p: float) -> Sampling:
    """How the `index`-th result is written: the first is searched for, the others are drawn, unless a temperature is
    given."""
    if temperature is not None:
        return Sampling(beam or 1, temperature, top_p)
    if index:
        return Sampling(1, 0.8, top_p)
    return Sampling(beam) if beam else Sampling(1, 1.0, 0.95, CANDIDATES)
