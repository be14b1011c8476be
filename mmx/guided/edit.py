"""A picture edited toward a text or a sound (StyleCLIP, Patashnik et al. 2021; StyleGAN-NADA, Gal et al. 2022).

The residual lies in what drives the frozen decoder; its noise is fixed. In a space that sees the picture, it is to move
a given way along the direction that is asked for, and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.decoders.base import Decoder
from mmx.decoders.face_words import FaceWords
from mmx.errors import InputError, ModelError, UsageError
from mmx.guided.invert import Inverted, invert, on_shell
from mmx.guided.residual import Outcome, Schedule, Step, Term, optimise
from mmx.media.audio import Waveform, read_audio
from mmx.media.faces import can_find, find_face
from mmx.media.image import read_image, to_rgb
from mmx.models.store import Located, locate
from mmx.spaces.base import Space
from mmx.spaces.compass import CANCELLED, Compass, known_means
from mmx.spaces.load import load_space
from mmx.spaces.parts import Part
from mmx.translate.base import Alone, Blend, Excerpt, Names, Translation, Translator, generator_for

STEPS, LR = 60, 0.05
WAY = 0.5  # how far strength 1 goes, in the unit sphere of what is seen
TAKEN = "taken for an aligned face: none is looked for without OpenCV (pip install 'mmx[train]')"
STRIP = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Wanted:
    """direction (D,): unit norm, in the space. strength: 1 goes WAY. keep, l2: weights of likeness and of a small
    residual."""

    direction: Tensor
    strength: float = 1.0
    keep: float = 1.0
    l2: float = 0.05


@dataclass(frozen=True)
class Seen:
    """What the terms look at. now, before: unit vectors (B, D). residual (B, D)."""

    now: Tensor
    before: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Terms:
    """The losses of an edit."""

    wanted: Wanted

    def wish(self, seen: Seen) -> Tensor:
        """How much of the way is not gone: 1 at the start, 0 where it is."""
        gone = (seen.now - seen.before) @ self.wanted.direction
        return (gone / (self.wanted.strength * WAY) - 1).square().mean()

    def likeness(self, seen: Seen) -> Tensor:
        """1 - cosine of what is across the direction: all else that is seen."""
        return 1 - F.cosine_similarity(self._across(seen.now), self._across(seen.before)).mean()

    def _across(self, points: Tensor) -> Tensor:
        direction = self.wanted.direction
        return points - (points @ direction)[:, None] * direction

    def all(self, scale: float) -> list[Term[Seen]]:
        """As the loop takes them. scale: of the residual's squares, so that the conditioning has unit variance."""
        return [
            Term("wish", 1.0, self.wish),
            Term("likeness", self.wanted.keep, self.likeness),
            Term("l2", self.wanted.l2, lambda seen: seen.residual.square().mean() * scale),
        ]


def edited(
    start: Tensor,
    wanted: Wanted,
    paint: Callable[[Tensor], Tensor],
    see: Callable[[Tensor], Tensor],
    *,
    schedule: Schedule,
    watch: Callable[[Step, Sequence[Tensor]], None] | None = None,
) -> tuple[Tensor, Outcome]:
    """A conditioning (1, D) → that of the edited picture, by optimisation. paint: conditioning → pixels in [0, 1]."""
    with torch.no_grad():
        before = see(paint(start))

    def look(residual: Sequence[Tensor], step: int) -> Seen:
        return Seen(see(paint(on_shell(start + residual[0], start))), before, residual[0])

    scale = start.shape[-1] / float(start.square().sum())
    terms = Terms(wanted).all(scale)
    found = optimise([torch.zeros_like(start)], look, terms, schedule, watch=watch)
    return on_shell(start + found.residual[0], start), found


class Editor(Translator):
    """Turns a picture, and what it is to become, into the edited picture.

    centre (D,): of the conditioning, from which the space's vectors are seen; 0 but for faces.
    """

    options = ("steps", "strength", "keep", "l2", "invert", "direction", "strip", "until")

    def __init__(
        self, decoder: Decoder, space: Space, centre: Tensor, *, decoder_at: Located, space_at: Located | None = None
    ) -> None:
        self.task, self.alone = "edit", Alone()
        self.decoder, self.space, self.centre = decoder, space, centre
        self.decoder_at, self.space_at = decoder_at, space_at
        self.watch: Callable[[Step, Sequence[Tensor]], None] | None = None

    @classmethod
    def open(cls, task: str, names: Names, decoder: Any, decoder_at: Located) -> Editor:
        """Find the space that sees the pictures: the decoder's own, or the one named. Raises ModelError."""
        own = decoder_at.folder / "teacher"
        if names.encoder is None and not own.is_dir():
            raise ModelError(
                f"{decoder_at.name}: its own space reads no texts", hint="--space CLIP says by what it is guided"
            )
        space_at = None if names.encoder is None else locate(names.encoder, task, "encoder")
        space = load_space(names.encoder or str(decoder_at.folder), device=str(decoder.device))
        centre = torch.zeros(1)
        if decoder.teacher.names_faces and names.encoder is None:
            centre = FaceWords.load(decoder_at.folder).mean
        return cls(decoder, space, centre, decoder_at=decoder_at, space_at=space_at)

    @property
    def models(self) -> dict[str, Located]:
        return {"decoder": self.decoder_at} | ({"encoder": self.space_at} if self.space_at else {})

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Image.Image | Waveform:
        """A picture, squared around a face for a decoder of faces; or a sound, which only a wish can be. Raises
        InputError."""
        if isinstance(source, Image.Image):
            return to_rgb(source)
        try:
            picture = read_image(source, name=name)
        except InputError as error:
            if "not a picture" not in error.message:
                raise
            return read_audio(source, name=name, sample_rate=self.space.rate, duration=self.space.window)
        return find_face(picture, name or "picture") if self.decoder.teacher.names_faces else picture

    def notes(self, name: str, medium: Image.Image | Waveform) -> list[str]:
        """That nobody looked for a face, where one is wanted and it can't be looked for."""
        unseen = self.decoder.teacher.names_faces and not can_find()
        return [*super().notes(name, medium), *([f"{name}: {TAKEN}"] if unseen else [])]

    def towards(self, shift: Sequence[Blend]) -> Tensor:
        """Weighted texts, pictures and sounds → the unit direction (D,) of their sum. Raises InputError, ModelError,
        UsageError where nothing is left."""
        compass = Compass(self.space, known_means(self.space))
        total = torch.stack([blend.weight * compass.direction([_part(blend.medium)]) for blend in shift]).sum(0)
        if total.norm() < CANCELLED:
            raise UsageError("what the picture is to become cancels itself", hint="give the terms other weights")
        return F.normalize(total, dim=-1)

    def shifted(self, start: Tensor, direction: Tensor, strength: float) -> Tensor:
        """Start (1, D) moved along the direction in the conditioning itself, without any steps (StyleCLIP's global
        directions). Raises UsageError where the space is not the decoder's."""
        if direction.shape[-1] != start.shape[-1] or self.space_at is not None:
            raise UsageError("--direction goes through the decoder's own space", hint="leave --space out")
        centre = self.centre.to(start)
        length = WAY * strength * (start - centre).norm(dim=-1, keepdim=True)
        return on_shell(start + length * direction.to(start), start)

    def translate(
        self,
        medium: Image.Image | Sequence[Image.Image],
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        shift: Sequence[Blend] = (),
        steps: int | None = None,
        strength: float = 1.0,
        keep: float = 1.0,
        l2: float = 0.05,
        invert: int = 40,
        direction: bool = False,
        strip: bool = False,
        until: int | None = None,
    ) -> Translation:
        """One picture → its edit for each of `indices`, which differ in the decoder's noise; with strip one row of
        strengths. Raises InputError for what is no picture, UsageError without a wish."""
        started = time.perf_counter()
        picture = medium[0] if isinstance(medium, (list, tuple)) else medium
        if not isinstance(picture, Image.Image):
            raise InputError("a picture is edited, and this is a sound", hint="--sound FILE says what it is to become")
        if not shift:
            raise UsageError("nothing says what the picture is to become", hint='mmx edit PICTURE "an old man"')
        wanted = Wanted(self.towards(shift).to(self.decoder.device), strength, keep, l2)
        schedule = Schedule(steps or STEPS, LR, until=until)
        done = Translation([])
        for index in indices:
            begun = time.perf_counter()
            found = self.inverted(picture, seed, index, invert)
            done.notes.append(_said(found))
            done.seconds["bridge"] = done.seconds.get("bridge", 0.0) + time.perf_counter() - begun
            self._one(done, found.conditioning, wanted, schedule, (seed, index), strip=strip, at_once=direction)
        done.seconds["decode"] = time.perf_counter() - started - done.seconds["bridge"]
        return done

    def _one(
        self,
        done: Translation,
        start: Tensor,
        wanted: Wanted,
        schedule: Schedule,
        noise: tuple[int, int],
        *,
        strip: bool,
        at_once: bool,
    ) -> None:
        """One edit, or one strip of them, into `done`."""
        if strip or at_once:
            strengths = STRIP if strip else (wanted.strength,)
            points = torch.cat([self.shifted(start, wanted.direction, strength) for strength in strengths])
        else:
            points, found = edited(
                start, wanted, partial(self.painted, *noise), self.space.see, schedule=schedule, watch=self.watch
            )
            done.stopped, done.until = found.stopped, len(found.steps) - 1
            first, last = found.steps[0].losses, found.steps[min(found.step, len(found.steps) - 1)].losses
            done.notes.append(", ".join(f"{name} {first[name]:.3f} to {last[name]:.3f}" for name in last))
        draws = [generator_for(*noise) for _ in points]
        done.media += self.decoder.decode(points.cpu(), generators=draws)
        done.conditioning = [*done.conditioning, *points.cpu()]

    def inverted(self, picture: Image.Image, seed: int, index: int, steps: int) -> Inverted:
        """What the decoder draws a picture from, with the noise of a seed and an index."""
        paint = lambda point: self.painted(seed, index, point) * 2 - 1  # noqa: E731
        return invert(picture, self.decoder, paint, self.space.see, steps)

    def painted(self, seed: int, index: int, point: Tensor) -> Tensor:
        """Raw conditioning (B, D) → pixels in [0, 1], always from the same noise."""
        pixels = self.decoder.paint(point, generators=[generator_for(seed, index) for _ in point])
        return (pixels / 2 + 0.5).clamp(0, 1)


def _part(medium: Any) -> Part:
    kinds = {str: "text", Waveform: "sound"}
    return Part(kinds.get(type(medium), "image"), medium)


def _said(found: Inverted) -> str:
    return f"drawn by the decoder it differs by {found.before:.3f}, after inversion by {found.after:.3f} (mean of 0..1)"
