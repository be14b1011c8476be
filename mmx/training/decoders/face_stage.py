"""`mmx train-decoder text --init FACE`: what texts about age and gender mean in a face decoder's space."""

from __future__ import annotations

import json
import shutil

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.data.photos import Photos, load_photos
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.face_words import FaceWords
from mmx.errors import InputError, UsageError
from mmx.models.store import seal
from mmx.nets.face import GENDERS
from mmx.training.card import with_face_texts
from mmx.training.decoders.text_stage import TextRecipe
from mmx.training.teachers.features import embeds_of

OLD, YOUNG = 50, 35  # years: val faces of at least, and below, that "an old person" and "a young person" tell apart


def train_face_texts(recipe: TextRecipe) -> None:
    """Fits and writes `run/decoder`; everything else of --init is as it was. Raises InputError, UsageError."""
    folder = recipe.run / "decoder"
    if folder.resolve() == recipe.start.resolve():
        raise UsageError(f"--init {recipe.start} lies in the run itself", hint="give another -o")
    teacher = FaceTeacher.load(recipe.start / "teacher")
    teacher.to(recipe.device, torch.float32)
    everything = load_photos(recipe.data, teacher.image_size, "faces")
    train, val = (everything.split(name) for name in ("train", "val"))
    if not len(train) or not len(val):
        raise InputError(f"{recipe.data}: its faces are not of two splits, train and val")
    raw = [
        embeds_of(faces, teacher, recipe.run / "embeds" / name)[:, 0]
        for name, faces in (("train", train), ("val", val))
    ]
    words = FaceWords.fit(raw[0], *labels_of(train))
    shutil.copytree(recipe.start, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    words.save(folder)
    measured = {"command": recipe.command, "photos": len(train), "val": told_apart(FaceWords.load(folder), raw[1], val)}
    numbers, card = folder / "metrics.json", folder / "README.md"
    former = json.loads(numbers.read_text(encoding="utf8")) if numbers.exists() else {}
    numbers.write_text(json.dumps(former | {"text": measured}, indent=1), encoding="utf8")
    card.write_text(
        with_face_texts(card.read_text(encoding="utf8") if card.exists() else "", measured), encoding="utf8"
    )
    seal(folder)


def labels_of(faces: Photos) -> tuple[Tensor, Tensor]:
    """Ages in years (N,), and whether each is labelled male (N,). Raises InputError where a label is not there."""
    bad = next((m["key"] for m in faces.meta if m.get("gender") not in GENDERS or "age" not in m), None)
    if bad is not None:
        raise InputError(f"{bad}: a face without age and gender")
    return torch.tensor([float(m["age"]) for m in faces.meta]), torch.tensor(
        [m["gender"] == "male" for m in faces.meta]
    )


def told_apart(words: FaceWords, raw: Tensor, faces: Photos) -> dict[str, float]:
    """Of faces (N, D), the share that the nearer of two texts names right: woman and man; old and young; chance 0.5.

    Each side counts half.
    """
    ages, male = labels_of(faces)
    points = F.normalize(raw - words.mean, dim=-1)

    def share(texts: tuple[str, str], truth: Tensor, known: Tensor) -> float:
        directions = F.normalize(words.embed(texts), dim=-1)
        right = ((points @ directions.T).argmax(1) == truth.long())[known]
        return sum(float(right[truth[known] == k].float().mean()) for k in (False, True)) / 2

    everybody, sure = torch.ones_like(male), (ages >= OLD) | (ages < YOUNG)
    return {
        "gender": share(("a woman", "a man"), male, everybody),
        "age": share(("a young person", "an old person"), ages >= OLD, sure),
    }
