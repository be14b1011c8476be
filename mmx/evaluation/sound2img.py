"""The protocol of sound → image: naming from sound alone, a judge on the pictures, distances to the training photos.

Every table has an oracle row and a random row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mmx.data.photos import Photos, Sounds, load_photos, load_sounds
from mmx.errors import UsageError
from mmx.evaluation.judge import Judge, named, train_judge
from mmx.evaluation.metrics import Row, decode, distances, draw, nearest, quantiles
from mmx.evaluation.report import Example, Report
from mmx.options import Measuring
from mmx.translate.sound2img import SoundTranslator


def naming(translator: SoundTranslator, sounds: Sounds, labels: Sequence[str]) -> tuple[dict[str, float], Tensor]:
    """Top-1 and top-5 of naming each sound's concept by its text in the joint space; and the sounds' points (N, D)."""
    points = torch.stack([translator.point(wave) for wave in sounds.waves])
    truth = _truth(sounds.meta, labels)
    return named(points @ translator.label_points().T, truth), points


def _truth(metas: Sequence[dict], labels: Sequence[str]) -> Tensor:
    return torch.tensor([list(labels).index(meta["concept"]) for meta in metas])


def rows(
    translator: SoundTranslator,
    points: Tensor,
    sound_truth: Tensor,
    photos: Photos,
    labels: Sequence[str],
    seed: int,
    limit: int,
) -> list[Row]:
    """Real photos, oracle, text, translated, random: at most `limit` pictures a concept in each."""
    keep = _balanced([meta.get("concept") for meta in photos.meta], labels, limit)
    real = [Image.fromarray(photos.pixels[i].numpy()) for i in keep]
    truth = _truth([photos.meta[i] for i in keep], labels)
    targets = translator.decoder.targets(real)
    sounds = _balanced([labels[k] for k in sound_truth.tolist()], labels, limit)
    heard = sound_truth[sounds]
    translated = draw(translator, [points[i] for i in sounds], seed)
    from_text = draw(translator, [translator.label_points()[k] for k in heard.tolist()], seed + 1)
    shuffled = heard[torch.randperm(len(heard), generator=torch.Generator().manual_seed(seed))]
    return [
        Row("real photos", real, truth),
        Row("oracle: a photo's own embedding", decode(translator, targets, seed), truth),
        Row("text: the concept's name", from_text, heard),
        Row("sound2img", translated, heard),
        Row("random: another sound's picture", translated, shuffled),
    ]


def _balanced(concepts: Sequence[str | None], labels: Sequence[str], limit: int) -> list[int]:
    """The first `limit` positions of each label, in order."""
    return [i for label in labels for i in [j for j, c in enumerate(concepts) if c == label][:limit]]


def measure(translator: SoundTranslator, options: Measuring) -> Report:
    """The whole protocol on one split. Raises InputError, UsageError where the data or the bridge do not allow it."""
    labels = list(translator.bridge.config.labels)
    if not labels:
        raise UsageError(
            "this bridge has no labels, so there is nothing to name",
            hint="train it on data with a `concept` in each .json",
        )
    everything = load_photos(Path(options.data), translator.decoder.teacher.net.image_size)
    photos, sounds = everything.split(options.split), load_sounds(Path(options.data)).split(options.split)
    if not len(sounds) or not len(photos):
        raise UsageError(f"--split {options.split}: the data has no such split")
    judge = train_judge(everything, labels, options.judge, max_steps=options.judge_steps, quiet=options.quiet)
    return evaluate(translator, sounds, photos, everything.split("train"), judge, options.seed, options.limit or 25)


def evaluate(
    translator: SoundTranslator,
    sounds: Sounds,
    photos: Photos,
    training: Photos,
    judge: Judge,
    seed: int = 0,
    limit: int = 25,
) -> Report:
    """Tables, and pictures of each concept's first sounds."""
    labels = list(translator.bridge.config.labels)
    table, points = naming(translator, sounds, labels)
    table_rows = rows(translator, points, _truth(sounds.meta, labels), photos, labels, seed, limit)
    judged = [judge(row.pictures) for row in table_rows]
    reference = judged[0][1]
    return Report(
        {
            "naming": {
                "sound2img": table,
                "oracle: photos": _name_photos(translator, table_rows[0], labels),
                "random": {"top1": 1 / len(labels), "top5": 5 / len(labels)},
            },
            "pictures": {
                row.name: named(logits, row.truth) | distances(features, reference) | {"count": len(row.pictures)}
                for row, (logits, features) in zip(table_rows, judged, strict=True)
            },
            "nearest_training_photo": {
                row.name: quantiles(nearest(row.pictures, training))
                for row in table_rows
                if not row.name.startswith("random")
            },
        },
        _examples(translator, sounds, points, labels, seed),
    )


def _name_photos(translator: SoundTranslator, row: Row, labels: Sequence[str]) -> dict[str, float]:
    embeds = translator.decoder.targets(row.pictures)
    return named(embeds @ translator.label_points().T, row.truth)


def _examples(
    translator: SoundTranslator, sounds: Sounds, points: Tensor, labels: Sequence[str], seed: int
) -> list[Example]:
    """Four pictures of each concept's first sound and of its second: what a person would be shown."""
    found = []
    for label in labels:
        for i in [i for i, meta in enumerate(sounds.meta) if meta["concept"] == label][:2]:
            found.append(Example(label, sounds.waves[i], draw(translator, [points[i]] * 4, seed)))
    return found
