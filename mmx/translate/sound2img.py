"""Sounds → pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.bridges.base import likeliest
from mmx.bridges.sound import SoundBridge
from mmx.errors import UsageError
from mmx.media.audio import Waveform, gained, mixed, part_of, read_audio, resample
from mmx.media.formats import HEARD_WINDOW
from mmx.media.image import read_image
from mmx.media.samples import read_samples
from mmx.translate.base import Blend, Excerpt, Translation, Translator, generator_for, slerp

CANCELLED = 1e-4  # norm of a sum that leaves nothing


class SoundTranslator(Translator):
    """Turns sounds into pictures of what makes them."""

    bridge_kind = SoundBridge
    options = ("steps", "guidance", "size", "gain", "frames")
    window: ClassVar[float] = HEARD_WINDOW  # seconds: of what is longer the loudest stretch

    @cached_property
    def _labelled(self) -> tuple[list[str], Tensor | None]:
        return self.bridge.labelled(self.decoder)

    @property
    def rate(self) -> int:
        """Hz, at which its sounds are read."""
        return self.bridge.rate

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Waveform:
        """A path, bytes, a Waveform, or (samples, rate) → mono at `rate`. Raises InputError.

        samples: (T,), (T, C) or (C, T), floats in [-1, 1] or integers. What a Waveform holds was read before: all of it
        is heard.
        """
        if isinstance(source, Waveform):
            whole = read_samples((source.samples, source.sample_rate), part_of(None), name or "input")
            return Waveform(resample(whole.samples, whole.sample_rate, self.rate), self.rate, source.notes)
        if isinstance(source, tuple):
            part = part_of(self.rate, excerpt.start, excerpt.duration, self.window)
            return read_samples(source, part, name or "input")
        return read_audio(source, sample_rate=self.rate, window=self.window, name=name, **vars(excerpt))

    @torch.inference_mode()
    def point(self, waveform: Waveform, seen: Image.Image | None = None) -> Tensor:
        """A waveform → its point (D,) of the joint space, unit norm. seen: a picture beside it, for a bridge that
        looks, too."""
        return self.bridge.point(waveform, **({} if seen is None else {"seen": self.decoder.targets([seen])}))

    def nameable(self, concepts: Sequence[str]) -> list[str]:
        """By which names sounds can be told apart, of some data's concepts: its bridge's labels, whatever the data
        holds."""
        return list(self.bridge.config.labels)

    def texts_of(self, labels: Sequence[str]) -> list[str]:
        """Of some names the texts that stand for them."""
        return [self.bridge.config.labels[label] for label in labels]

    def text_points(self, labels: Sequence[str]) -> Tensor:
        """Of some names the texts where the points of sounds are, unit norm (K, D)."""
        names, points = self._labelled
        return points[[names.index(label) for label in labels]]

    def text_conditioning(self, label: str, seed: int, index: int) -> tuple[Tensor, torch.Generator]:
        """As `conditioning`, of a name in the place of a sound."""
        return self.conditioning(self.text_points([label])[0], seed, index)

    def among_targets(self, point: Tensor, seed: int, index: int) -> Tensor:
        """A point (D,) as it can be compared with the decoder's targets."""
        return point

    def notes(self, name: str, sound: Waveform) -> list[str]:
        found = super().notes(name, sound)
        if sound.seconds < 1.0:
            found.append(f"{name}: only {sound.seconds:.2f} s of sound; it is repeated to fill the window")
        if sound.rms_db < -55:
            found.append(f"{name}: very quiet ({sound.rms_db:.0f} dB); what is heard may be noise")
        return found

    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """The bridge's labels nearest to a point, with probabilities over all its labels."""
        names, points = self._labelled
        return [] if points is None else likeliest((points @ point * self.bridge.logit_scale).softmax(0), names, top)

    def direction(self, medium: Any) -> Tensor:
        """A text, a picture or a sound → where it points in the joint space (D,), unit norm: of what texts and sounds
        have in common, as far as the bridge's labels tell, nothing is left."""
        if isinstance(medium, Image.Image):
            return F.normalize(self.decoder.targets([medium])[0].flatten(), dim=-1)
        points = self._labelled[1]
        own = self.point_of_text(medium) if isinstance(medium, str) else self.point(medium)
        return F.normalize(own if points is None else own - F.normalize(points.mean(0), dim=-1), dim=-1)

    def point_of_text(self, text: str) -> Tensor:
        """A text → its point (D,), unit norm. Raises ModelError where the space has no texts."""
        return self.decoder.teacher.embed_texts([text])[0]

    def shifted(self, point: Tensor, shift: Sequence[Blend]) -> Tensor:
        """A point (D,) plus what other media mean, each with its weight, which may be below 0; unit norm."""
        if not shift:
            return point
        total = point + sum(blend.weight * self.direction(blend.medium) for blend in shift)
        if total.norm() < CANCELLED:
            raise UsageError("--plus and --minus leave nothing of the input", hint="give them other weights")
        return F.normalize(total, dim=-1)

    def sample(self, point: Tensor, generator: torch.Generator) -> Tensor:
        """A point → a raw conditioning (D,) that fits it."""
        return self.bridge.sample(point, generator)

    @torch.inference_mode()
    def conditioning(
        self, point: Tensor, seed: int, index: int, image: Blend | None = None
    ) -> tuple[Tensor, torch.Generator]:
        """The raw conditioning (D,) of the `index`-th result, and the generator that the decoder goes on with."""
        generator = generator_for(seed, index)
        sample = self.sample(point, generator)
        if image is not None:
            own = self.decoder.targets([image.medium])[0]
            sample = slerp(own, sample, 1 - image.weight)
        return sample, generator

    def translate(
        self,
        waveform: Waveform | Sequence[Waveform],
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        gain: float = 0.0,
        mix: Sequence[Blend] = (),
        image: Blend | None = None,
        interpolate: Waveform | None = None,
        frames: int = 8,
        shift: Sequence[Blend] = (),
    ) -> Translation:
        """One sound → a picture for each of `indices`, or, with `interpolate`, the `frames` pictures on the way to
        another sound.

        Several sounds are averaged in the space. gain: dB, applied before mixing. mix: other sounds, heard at the same
        time. image: a picture to edit toward the sound, or, of a bridge with two sources, to see beside it. shift:
        texts, pictures or sounds whose meaning is added to the sound's, or taken off it.
        """
        started = time.perf_counter()
        together = [waveform] if isinstance(waveform, Waveform) else list(waveform)
        if gain:
            together = [gained(wave, gain) for wave in together]
        if mix:
            together = [self._mixed(wave, mix, gain) for wave in together]
        seen = None
        if image is not None and self.bridge.looks:
            seen, image = image.medium, None  # its second source, and not a picture to edit
        ways = [self.point(wave, seen) if seen is not None else self.point(wave) for wave in together]
        point = self.shifted(F.normalize(torch.stack(ways).mean(0), dim=-1), shift)
        points = [(point, index) for index in indices]
        if interpolate is not None:
            other = self.shifted(self.point(interpolate), shift)
            points = [(slerp(point, other, k / max(1, frames - 1)), 0) for k in range(frames)]
        drawn = [self.conditioning(p, seed, index, image) for p, index in points]
        bridged = time.perf_counter()
        media = self.decoder.decode(
            torch.stack([c for c, _ in drawn]),
            generators=[g for _, g in drawn],
            steps=steps,
            guidance=guidance,
            size=size,
        )
        return Translation(
            media, self.hear(point), {"bridge": bridged - started, "decode": time.perf_counter() - bridged}
        )

    @staticmethod
    def _mixed(waveform: Waveform, mix: Sequence[Blend], gain: float) -> Waveform:
        own = 1 - sum(blend.weight for blend in mix)
        if own <= 0:
            raise UsageError("the weights of --mix leave nothing of the input", hint="their sum must stay below 1")
        return mixed(
            [waveform, *(blend.medium for blend in mix)], [own * 10 ** (gain / 20), *(blend.weight for blend in mix)]
        )

    def __call__(
        self,
        sources: Any,
        *,
        mix: Sequence[tuple[Any, float]] = (),
        image: tuple[Any, float] | None = None,
        interpolate: Any = None,
        **options: Any,
    ) -> list:
        """As of every translator; what is blended in is given as (medium or path, weight)."""
        given: dict[str, Any] = {"mix": [Blend(self.read(medium), weight) for medium, weight in mix]}
        if image is not None:
            picture = image[0] if isinstance(image[0], Image.Image) else read_image(image[0])
            given["image"] = Blend(picture, image[1])
        if interpolate is not None:
            given["interpolate"] = self.read(interpolate)
        return super().__call__(sources, **given, **options)
