"""The protocol of voice → face: gender agreement, a stock detector, retrieval, separation of speakers, diversity,
copies.

Every table has an oracle row (a real face's own feature through the decoder) and a random row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.data.photos import Photos, Sounds, load_photos, load_sounds
from mmx.errors import UsageError
from mmx.evaluation.judge import Judge, judge_for
from mmx.evaluation.metrics import (
    PictureSet,
    decode,
    distances,
    draw,
    first_of_each,
    grid_energy,
    nearest,
    quantiles,
)
from mmx.evaluation.report import Example, Report, Table
from mmx.evaluation.voice_likeness import voice_likeness
from mmx.media.audio import Waveform
from mmx.nets.face import GENDERS
from mmx.recipes.base import Measuring
from mmx.training.teachers.ge2e import is_installed, load_speaker_encoder
from mmx.translate.voice2face import VoiceTranslator

FACES = 8  # drawn for each voice


def detected(pictures: Sequence[Image.Image]) -> dict[str, float]:
    """The shares of pictures in which OpenCV's stock frontal-face cascade finds exactly one face, and none.

    The pictures are doubled and given a border of a quarter, because the cascade wants some room around a face.
    """
    import cv2

    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    counts = []
    for picture in pictures:
        gray = np.asarray(
            picture.convert("L").resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC)
        )
        edge = gray.shape[0] // 4
        gray = np.pad(gray, edge, mode="edge")
        side = gray.shape[0] // 3
        counts.append(len(cascade.detectMultiScale(gray, 1.05, 4, minSize=(side, side))))
    found = np.array(counts)
    return {"one_face": float((found == 1).mean()), "no_face": float((found == 0).mean())}


def agreement(logits: Tensor, truth: Tensor) -> dict[str, float]:
    """How often the judge sees the wanted gender: a share for each, and their mean. logits (N, 2), truth (N,)."""
    hits = logits.argmax(1) == truth
    shares = {name: hits[truth == k].float().mean().item() for k, name in enumerate(GENDERS) if (truth == k).any()}
    return {"gender": sum(shares.values()) / len(shares)} | shares


def gender_recall(points: Tensor, truth: Tensor, faces: Tensor, face_truth: Tensor) -> dict[str, dict[str, float]]:
    """R@1/5/10: whether a face of the voice's gender is among the nearest; and by chance. points (N, D),
    faces (M, D).
    """
    order = (F.normalize(points, dim=-1) @ F.normalize(faces, dim=-1).T).topk(min(10, len(faces))).indices
    right = face_truth[order] == truth[:, None]
    share = torch.stack([(face_truth == k).float().mean() for k in truth])
    return {
        "voice2face": {f"R@{k}": right[:, :k].any(1).float().mean().item() for k in (1, 5, 10)},
        "random": {f"R@{k}": (1 - (1 - share) ** k).mean().item() for k in (1, 5, 10)},
    }


def auc(same: Tensor, different: Tensor) -> float:
    """The chance that a value of `same` is above one of `different` (the area under the ROC curve)."""
    return (same[:, None] > different[None, :]).float().mean().item()


def separation(translator: VoiceTranslator, voices: Sequence[Waveform], truth: Tensor) -> dict[str, dict[str, float]]:
    """Halves of one utterance against halves of other speakers' utterances: mean cosines, and the area under
    the curve.
    """
    halves = [[wave.samples[: len(wave.samples) // 2], wave.samples[len(wave.samples) // 2 :]] for wave in voices]
    points = torch.stack(
        [
            translator.point(Waveform(half, wave.sample_rate))
            for pair, wave in zip(halves, voices, strict=True)
            for half in pair
        ]
    )
    scores = points @ points.T
    speaker = torch.arange(len(voices)).repeat_interleave(2)
    gender = truth.repeat_interleave(2)
    upper = torch.ones_like(scores, dtype=torch.bool).triu(1)
    same = scores[(speaker[:, None] == speaker) & upper]
    others = scores[(speaker[:, None] != speaker) & upper]
    alike = scores[(speaker[:, None] != speaker) & (gender[:, None] == gender) & upper]
    return {
        "same speaker": {"cosine": same.mean().item(), "auc": 1.0},
        "other speakers": {"cosine": others.mean().item(), "auc": auc(same, others)},
        "others of the same gender": {"cosine": alike.mean().item(), "auc": auc(same, alike)},
        "random": {"cosine": 0.0, "auc": 0.5},
    }


def pixel_diversity(pictures: Sequence[Image.Image]) -> float:
    """Mean RMS pixel difference (0..1) over all pairs of pictures."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).flatten(1).float() / 255
    distance = torch.cdist(pixels, pixels) / pixels.shape[1] ** 0.5
    count = len(pictures)
    return (distance.sum() / (count * (count - 1))).item()


def measure(translator: VoiceTranslator, options: Measuring) -> Report:
    """The whole protocol on one split. Raises InputError, UsageError where the data does not allow it."""
    if not translator.decoder.teacher.names_faces:
        raise UsageError("this protocol asks the decoder's teacher for a gender, and this one names none")
    data, size = Path(options.data), translator.decoder.defaults["size"]
    everything = load_photos(data, translator.decoder.teacher.image_size, "faces")
    # real faces are shown at the size of the drawn ones
    voices, photos = load_sounds(data, "voices").split(options.split), load_photos(data, size, "faces", options.split)
    if not len(voices) or not len(photos):
        raise UsageError(f"--split {options.split}: the data has no such split")
    judge = judge_for(everything, GENDERS, options, key="gender", device=translator.decoder.device)
    real = first_of_each([meta["gender"] for meta in photos.meta], GENDERS, options.limit or 100)
    pictures = [Image.fromarray(photos.pixels[i].numpy()) for i in real]
    truth = torch.tensor([GENDERS.index(photos.meta[i]["gender"]) for i in real])
    real_faces = PictureSet("real faces", pictures, truth)
    return evaluate(translator, voices, real_faces, everything.split("train"), judge, seed=options.seed)


def evaluate(
    translator: VoiceTranslator, voices: Sounds, real: PictureSet, training: Photos, judge: Judge, *, seed: int = 0
) -> Report:
    """Tables, and every voice with its faces. training: the faces that may have been copied."""
    points = torch.stack([translator.point(wave) for wave in voices.waves])
    truth = torch.tensor([GENDERS.index(meta["gender"]) for meta in voices.meta])
    targets = translator.decoder.targets(real.pictures)
    drawn = draw(translator, [point for point in points for _ in range(FACES)], seed, [*range(FACES)] * len(points))
    drawn_truth = truth.repeat_interleave(FACES)
    shuffled = drawn_truth[torch.randperm(len(drawn_truth), generator=torch.Generator().manual_seed(seed))]
    sets = [
        real,
        PictureSet("oracle: a face's own feature", decode(translator, targets, seed), real.truth),
        PictureSet("voice2face", drawn, drawn_truth),
        PictureSet("random: another voice's face", drawn, shuffled),
    ]
    tables = {
        "faces": faces(sets, judge),
        "naming": {"voice2face": _suggested(translator, points, truth), "random": {"gender": 0.5}},
        "retrieval": gender_recall(points, truth, targets, real.truth),
        "separation": separation(translator, voices.waves, truth),
        "diversity": _diversity(drawn, real.pictures, real.truth),
        "nearest_training_face": {shown.name: quantiles(nearest(shown.pictures, training)) for shown in sets[:3]},
    }
    if is_installed():
        tables["likeness_by_ge2e"] = voice_likeness(load_speaker_encoder(), voices.waves, {"voice2face": points}, truth)
    examples = [
        Example(f"{meta['gender']} {meta['key']}", wave, drawn[number * FACES : (number + 1) * FACES])
        for number, (wave, meta) in enumerate(zip(voices.waves, voices.meta, strict=True))
    ]
    return Report(tables, examples, {"judge": judge.name})


def faces(sets: Sequence[PictureSet], judge: Judge) -> Table:
    """What the judge and the detector make of sets of faces, and how far each is from the first, the real ones."""
    judged = [judge(shown.pictures) for shown in sets]
    return {
        shown.name: agreement(logits, shown.truth)
        | detected(shown.pictures)
        | distances(features, judged[0][1])
        | {"grid": grid_energy(shown.pictures, sets[0].pictures), "count": len(shown.pictures)}
        for shown, (logits, features) in zip(sets, judged, strict=True)
    }


def _suggested(translator: VoiceTranslator, points: Tensor, truth: Tensor) -> dict[str, float]:
    shares = translator.decoder.teacher.gender_shares(points * translator.decoder.spec.mean_norm)
    return {"gender": (shares.argmax(1) == truth).float().mean().item()}


def _diversity(
    drawn: Sequence[Image.Image], real: Sequence[Image.Image], real_truth: Tensor
) -> dict[str, dict[str, float]]:
    own = [pixel_diversity(drawn[start : start + FACES]) for start in range(0, len(drawn), FACES)]
    groups = [
        pixel_diversity([real[i] for i in (real_truth == k).nonzero()[:, 0].tolist()])
        for k in real_truth.unique().tolist()
    ]
    return {
        "voice2face: faces of one voice": {"rms": float(np.mean(own))},
        "real faces of one gender": {"rms": float(np.mean(groups))},
    }
