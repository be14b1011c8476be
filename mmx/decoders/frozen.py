"""What all decoders and teachers share: where they compute, how many items at once, and that what they give
lies on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from mmx.decoders.base import ConditioningSpec, Teacher, TextPrior
from mmx.device import Placed, out_of_memory
from mmx.errors import ModelError

T = TypeVar("T")
EMBEDDED = 256  # pictures that a teacher embeds at once, as long as memory suffices


def in_batches(work: Callable[[slice], Sequence[T]], count: int, most: int) -> tuple[list[T], int]:
    """`work` on `count` items, `most` at a time, and half as many where memory runs out → its results, and how many at
    a time fit.

    Raises what `work` raises, and that memory ran out where it does so for one item alone.
    """
    done: list[T] = []
    while len(done) < count:
        part = slice(len(done), min(len(done) + most, count))
        size = part.stop - part.start
        try:
            done += work(part)
            continue
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not out_of_memory(error):
                raise
        most = size // 2  # and only now again: the error held on to the memory
    return done, most


class FrozenTeacher:
    """What teachers share: by default one reads no texts and names no faces."""

    has_texts = False
    names_faces = False
    image_size = 0

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Nothing to move."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        raise ModelError("this decoder's space has no text encoder")

    def are_far(self, texts: Sequence[str]) -> list[bool]:
        return [False] * len(texts)

    def gender_shares(self, raw: Tensor) -> Tensor:
        raise ModelError("this decoder's teacher names no faces", hint="the starter face decoder's does")

    def suggest(self, raw: Tensor) -> list[tuple[str, float]]:
        return []


class NoTeacher(FrozenTeacher):
    """In place of a teacher that does not lie beside its decoder: it says so when it is asked."""

    def __init__(self, message: str, hint: str) -> None:
        self.message, self.hint = message, hint

    def embed(self, media: Sequence[Any]) -> Any:
        raise ModelError(self.message, hint=self.hint)


class PictureTeacher(FrozenTeacher):
    """What teachers of pictures share: `_embed` gets some of them at a time."""

    _most = EMBEDDED

    @torch.inference_mode()
    def embed(self, media: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size → raw embeddings (B, D), float32, on the CPU."""
        rows, self._most = in_batches(lambda part: self._embed(media[part]).float().cpu(), len(media), self._most)
        return torch.stack(rows)

    def _embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures → raw embeddings (B, D), wherever they are computed."""
        raise NotImplementedError


class FrozenDecoder:
    """What decoders share. batch: items decoded at once on a GPU; `max_batch` is that, or what was found to fit, or on
    the CPU 1:

    a matrix product's last bits depend on the batch it is in, and there an item's bytes must not depend on its
    neighbours.
    """

    batch = 1
    max_batch = 1
    device = torch.device("cpu")
    spared = False  # whether its parts come to the device only when they are needed

    def __init__(self, teacher: Teacher, spec: ConditioningSpec, defaults: dict[str, Any]) -> None:
        self.teacher, self.spec, self.defaults = teacher, spec, defaults

    def networks(self) -> list[nn.Module]:
        """All that it and its teacher compute with."""
        parts = (*vars(self).values(), *vars(self.teacher).values())
        return [part for part in parts if isinstance(part, nn.Module)]

    def targets(self, media: Sequence[Any]) -> Any:
        """Real media → their raw conditioning, on the CPU."""
        return self.teacher.embed(media)

    def paint(self, conditioning: Tensor, *, generators: Sequence[torch.Generator], **options: Any) -> Tensor:
        raise ModelError(
            f"{self.spec.name}: what this decoder makes has no gradients by what drives it",
            hint="the starter decoders of images and faces, and diffusion decoders driven by embeddings, have",
        )

    def first_layer(self, conditioning: Tensor) -> Tensor:
        raise ModelError(f"{self.spec.name}: no first layer of this decoder is known", hint="--loss infonce takes none")

    def text_prior(self) -> TextPrior | None:
        return None

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> Self:
        """Move every part to a device and a dtype."""
        self._move(device, dtype)
        self.teacher.to(device, dtype)
        self.device, self.spared = torch.device(device), False
        self.max_batch = 1 if self.device.type == "cpu" else self.batch
        return self

    def place(self, where: Placed, *, low_memory: bool = False, compile: bool = False) -> Self:
        """As `to`. low_memory: parts come to the device when they are needed, items one by one. compile:
        compile what draws.
        """
        if low_memory:
            self._spare(where.device, where.dtype)
            self.device, self.spared, self.max_batch = torch.device(where.device), True, 1
        else:
            self.to(where.device, where.dtype)
        if compile:
            self._compile()
        return self

    def _move(self, device: str, dtype: torch.dtype) -> None:
        """Move all but the teacher."""
        raise NotImplementedError

    def _spare(self, device: str, dtype: torch.dtype) -> None:
        """Leave the parts on the CPU; `at_work` brings each when it is needed."""
        self._move("cpu", dtype)

    def _compile(self) -> None:
        raise NotImplementedError

    @contextmanager
    def at_work(self, module: nn.Module) -> Iterator[nn.Module]:
        """Inside, a part is where it computes."""
        if self.spared:
            module.to(self.device)
        try:
            yield module
        finally:
            if self.spared:
                module.to("cpu")

    def _in_batches(
        self,
        conditioning: Any,
        generators: Sequence[torch.Generator],
        draw: Callable[[Any, Sequence[torch.Generator]], Sequence[T]],
    ) -> list[T]:
        """`draw` on `max_batch` items at a time; a second try draws the same noise again."""
        states = [generator.get_state() for generator in generators]

        def work(part: slice) -> Sequence[T]:
            for generator, state in zip(generators[part], states[part], strict=True):
                generator.set_state(state)
            return draw(conditioning[part], generators[part])

        media, self.max_batch = in_batches(work, len(conditioning), self.max_batch)
        return media
