"""The space of a face decoder's teacher: faces, and texts about their age and gender."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmx.decoders.base import fingerprint
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.face_words import FILE, FaceWords
from mmx.models.store import Located
from mmx.spaces.base import Space
from mmx.spaces.pixels import teacher_sees


def open_faces(at: Located, device: str) -> Space:
    """A face decoder's folder. What its vectors compare is how faces differ from the mean face. Raises ModelError."""
    teacher, words = FaceTeacher.load(at.folder / "teacher"), FaceWords.load(at.folder)
    teacher.to(device, torch.float32)

    def see(faces: Sequence) -> Tensor:
        return teacher.embed(faces) - words.mean

    def see_pixels(pixels: Tensor) -> Tensor:
        seen = teacher_sees(teacher, pixels)
        return seen - words.mean.to(seen)

    return Space(
        at.name,
        fingerprint(at.folder, ("teacher", FILE)),
        teacher.net.dim,
        encoders={"image": see, "text": words.embed},
        scale={"image": 10.0},
        prompts={"image": ("{}",)},
        labels=(
            "a young woman",
            "a young man",
            "a middle-aged woman",
            "a middle-aged man",
            "an old woman",
            "an old man",
        ),
        pixels=see_pixels,
        models=[teacher.net],
    )
