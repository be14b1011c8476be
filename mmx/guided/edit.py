"""A picture edited toward a text or a sound (StyleCLIP, Patashnik et al. 2021; StyleGAN-NADA, Gal et al. 2022).

The residual lies in what drives the frozen decoder; its noise is fixed. In a space that sees the picture, it is to move
a given way along the direction that is asked for, and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.bridges.mapper import Mapper
from mmx.decoders.base import Decoder
from mmx.decoders.face_words import FaceWords
from mmx.errors import InputError, Interrupted, ModelError, NotAPictureError, UsageError
from mmx.guided.edit_terms import LR, STEPS, WAY, Wanted, edited
from mmx.guided.held import across
from mmx.guided.invert import Inverted, invert
from mmx.guided.residual import Outcome, Schedule, Step
from mmx.media.audio import Waveform, read_audio
from mmx.media.faces import can_find, find_face
from mmx.media.files import kind_of_file
from mmx.media.image import read_image, to_rgb
from mmx.models.store import Located, locate
from mmx.spaces.base import Space
from mmx.spaces.compass import CANCELLED, Compass, known_means
from mmx.spaces.load import load_space
from mmx.spaces.parts import Part
from mmx.translate.base import Alone, Blend, Excerpt, Names, Translation, Translator, generator_for

TAKEN = "taken for an aligned face: none is looked for without OpenCV (pip install 'mmx[train]')"
BEGINS = (0.625, 0.9375, 1.25, 1.5625)  # of where --direction ends; of 1.25 a decoder of faces draws about WAY
STRIP = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


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
        self.mapper: Mapper | None = None
        self.mapper_at: Located | None = None

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
        editor = cls(decoder, space, centre, decoder_at=decoder_at, space_at=space_at)
        if names.bridge is not None:
            editor.use(locate(names.bridge, task, "bridge"))
        return editor

    def use(self, mapper_at: Located) -> None:
        """Edit by a mapper, which `mmx train-mapper` made. Raises ModelError for one of another decoder."""
        mapper = Mapper.load(mapper_at.folder)
        mapper.require(self.decoder, mapper_at.name)
        self.mapper, self.mapper_at = mapper.to(self.decoder.device), mapper_at

    @property
    def models(self) -> dict[str, Located]:
        found = {"bridge": self.mapper_at, "decoder": self.decoder_at, "encoder": self.space_at}
        return {role: at for role, at in found.items() if at is not None}

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Image.Image | Waveform:
        """A picture, squared around a face for a decoder of faces; or a sound, which only a wish can be. Raises
        InputError."""
        if isinstance(source, Image.Image):
            return to_rgb(source)
        try:
            picture = read_image(source, name=name)
        except NotAPictureError:
            if kind_of_file(Path(name or "")) == "image":
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

    def wanted(self, shift: Sequence[Blend], strength: float = 1.0, keep: float = 1.0, l2: float = Wanted.l2) -> Wanted:
        """What weighted terms ask for, and what they say nothing of is held, where the decoder's own space knows what
        that is. Raises as `towards`."""
        direction, texts = self.towards(shift), [blend.medium for blend in shift]
        hold = None
        if self.space_at is None and self.space.unsaid is not None and all(isinstance(text, str) for text in texts):
            hold = self.space.unsaid(texts)
            direction, hold = across(direction, hold), hold.to(self.decoder.device)
        return Wanted(direction.to(self.decoder.device), strength, keep, l2, hold)

    def shifted(self, start: Tensor, wanted: Wanted, strength: float) -> Tensor:
        """Start (1, D) moved along what is wanted in the conditioning itself, without any steps (StyleCLIP's global
        directions), by WAY of how far it is from the centre. A decoder of faces draws four fifths of that; farther on,
        less of what is held stays. Raises UsageError where the space is not the decoder's."""
        if not self._is_own(start, wanted):
            raise UsageError("--direction goes through the decoder's own space", hint="leave --space out")
        centre = self.centre.to(start)
        length = WAY * strength * (start - centre).norm(dim=-1, keepdim=True)
        return wanted.held(start + length * wanted.direction.to(start), start)

    def _is_own(self, start: Tensor, wanted: Wanted) -> bool:
        """Whether what is seen is what the decoder is driven by, so that a direction in one is one in the other."""
        return wanted.direction.shape[-1] == start.shape[-1] and self.space_at is None

    def by_steps(
        self,
        start: Tensor,
        wanted: Wanted,
        schedule: Schedule,
        noise: tuple[int, int],
        watch: Callable[[Step, Sequence[Tensor]], None] | None = None,
    ) -> tuple[Tensor, Outcome]:
        """Start (1, D) edited by optimisation; of a face from the best of some points along the direction on, since
        texts about faces are what they do to the conditioning itself. In other spaces a direction costs more of the
        picture than steps do. noise: seed and index."""
        shares = BEGINS if wanted.hold is not None and self._is_own(start, wanted) else ()
        begins = [self.shifted(start, wanted, share * wanted.strength) for share in shares]
        paint = partial(self.painted, *noise)
        return edited(start, wanted, paint, self.space.see, schedule=schedule, begins=begins, watch=watch)

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
        mapper = self._mapper(shift, steps, direction)
        if not shift and mapper is None:
            raise UsageError("nothing says what the picture is to become", hint='mmx edit PICTURE "an old man"')
        wanted = self.wanted(shift, strength, keep, l2) if mapper is None else Wanted(torch.zeros(self.space.dim))
        schedule = Schedule(steps or STEPS, LR, until=until)
        strengths = STRIP if strip else (strength,) if direction or mapper else ()
        along = mapper.edited if mapper else partial(self.shifted, wanted=wanted)
        done = Translation([])
        for index in indices:
            begun = time.perf_counter()
            try:
                found = self.inverted(picture, seed, index, invert)
            except Interrupted:
                if not done.media:
                    raise
                done.stopped, done.until = "interrupted", None  # those before it are whole
                break
            done.notes.append(_said(found))
            done.seconds["bridge"] = done.seconds.get("bridge", 0.0) + time.perf_counter() - begun
            start = found.conditioning
            if strengths:
                points = torch.cat([along(start, strength=strength) for strength in strengths])
            else:
                points = self._by_steps(done, start, wanted, schedule, (seed, index))
            draws = [generator_for(seed, index) for _ in points]
            done.media += self.decoder.decode(points.cpu(), generators=draws)
            done.conditioning = [*done.conditioning, *points.cpu()]
            if done.stopped:
                break
        done.seconds["decode"] = time.perf_counter() - started - done.seconds["bridge"]
        return done

    def _mapper(self, shift: Sequence[Blend], steps: int | None, direction: bool) -> Mapper | None:
        """The mapper, where there is one, for what is asked for. Raises UsageError where that is something else."""
        if self.mapper is None:
            return None
        if steps is not None or direction:
            raise UsageError("a mapper edits at once, and its own way", hint="leave --steps and --direction out")
        for blend in shift:
            self.mapper.require_text(blend.medium if blend.weight == 1 else None)
        return self.mapper

    def _by_steps(
        self, done: Translation, start: Tensor, wanted: Wanted, schedule: Schedule, noise: tuple[int, int]
    ) -> Tensor:
        """An edit by optimisation, and what there is to say of it, into `done`."""
        point, found = self.by_steps(start, wanted, schedule, noise, self._seen)
        done.stopped, done.until = found.stopped, len(found.steps) - 1
        first, last = found.steps[0].losses, found.steps[min(found.step, len(found.steps) - 1)].losses
        done.notes.append(", ".join(f"{name} {first[name]:.3f} to {last[name]:.3f}" for name in last))
        return point

    def _seen(self, step: Step, _: Sequence[Tensor]) -> None:
        if self.watch is not None:
            self.watch(step.index, step.total, step.losses)

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
