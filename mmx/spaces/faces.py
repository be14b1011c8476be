"""The space of a face decoder's teacher: faces, and texts about their age and gender."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mmx.decoders.base import fingerprint
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.face_words import FILE, FaceWords
from mmx.media.face_texts import said
from mmx.models.store import Located
from mmx.nets.face import GENDERS, FaceEncoder
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
        unsaid=partial(unsaid, teacher.net),
    )


def unsaid(net: FaceEncoder, texts: Sequence[str]) -> Tensor:
    """Texts → orthonormal directions (H, D), along which the teacher's linear classifier reads whichever of age and
    gender none of them speaks about: the normals of its boundaries (InterFaceGAN's, Shen et al. 2020), not what the
    attribute does to a feature, which has others' in it. Raises InputError for a text that is of no face."""
    about = [said(text) for text in texts]
    rows = net.attributes.weight.detach().cpu().unflatten(0, (len(GENDERS), len(net.ages)))  # (genders, ages, D)
    ages, genders = rows.mean(0), rows.mean(1)
    read = [
        of - of.mean(0)  # what all logits have in common says nothing
        for of, spoken in ((ages, [a.age for a in about]), (genders, [a.gender for a in about]))
        if all(value is None for value in spoken)
    ]
    normals = torch.cat([*read, torch.zeros(1, net.dim)])
    _, sizes, axes = torch.linalg.svd(normals, full_matrices=False)
    return axes[sizes > 1e-4 * normals.norm().clamp(min=1e-12)]
