"""The protocol of sound → image: naming from sound alone, a judge on the pictures, distances to the training photos.

Every table has an oracle row and a random row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.sound import SoundBridge
from mmx.data.photos import Photos, Sounds, load_photos, load_sounds
from mmx.errors import UsageError
from mmx.evaluation.changed import CHANGES
from mmx.evaluation.judge import Judge, judge_for
from mmx.evaluation.metrics import (
    PictureSet,
    decode,
    distances,
    draw,
    draw_texts,
    first_of_each,
    nearest,
    quantiles,
    spread,
    top_accuracy,
)
from mmx.evaluation.report import Example, Report, Table
from mmx.recipes.base import Measuring
from mmx.training.decoders.text_measures import FRAMES
from mmx.translate.base import generator_for
from mmx.translate.sound2img import SoundTranslator


def measure(translator: SoundTranslator, options: Measuring) -> Report:
    """The whole protocol on one split. Raises InputError, UsageError where the data or the bridge do not allow it."""
    sounds = load_sounds(Path(options.data)).split(options.split)
    labels = translator.nameable(sorted({meta["concept"] for meta in sounds.meta if meta.get("concept")}))
    if not labels:
        raise UsageError(
            "this bridge has no labels, so there is nothing to name",
            hint="train it on data with a `concept` in each .json",
        )
    everything = load_photos(Path(options.data), translator.decoder.teacher.image_size)
    photos = everything.split(options.split)
    sounds = sounds.only([i for i, meta in enumerate(sounds.meta) if meta.get("concept") in labels])
    if not len(sounds) or not len(photos):
        raise UsageError(f"--split {options.split}: the data has no such split")
    judge = judge_for(everything, labels, options, device=translator.decoder.device)
    given = Given(translator, sounds, photos, labels, options.seed)
    return evaluate(given, everything.split("train"), judge, options.limit or 25)


@dataclass
class Given:
    """What is measured, and on what. labels: the concepts to tell apart."""

    translator: SoundTranslator
    sounds: Sounds
    photos: Photos
    labels: Sequence[str]
    seed: int = 0

    @cached_property
    def points(self) -> Tensor:
        """The sounds' points (N, D)."""
        return torch.stack([self.translator.point(wave) for wave in self.sounds.waves])

    def truth(self, metas: Sequence[dict]) -> Tensor:
        """The label of each (N,), an index into `labels`."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        return torch.tensor([numbers[meta["concept"]] for meta in metas])


def evaluate(given: Given, training: Photos, judge: Judge, limit: int = 25) -> Report:
    """Tables, and pictures of each concept's first sounds. training: the photos that may have been copied."""
    sets = picture_sets(given, limit)
    judged = [judge(shown.pictures) for shown in sets]
    reference = judged[0][1]
    pictures = {
        shown.name: top_accuracy(logits, shown.truth) | distances(features, reference) | {"count": len(shown.pictures)}
        for shown, (logits, features) in zip(sets, judged, strict=True)
    }
    pictures["as many real photos of training"] = floor(given, training, judge, reference)
    return Report(
        {
            "naming": naming(given, sets[0]),
            "pictures": pictures,
            **sentences(given, judge, pictures["oracle: a photo's own embedding"]),
            "nearest_training_photo": {
                shown.name: quantiles(nearest(shown.pictures, training))
                for shown in sets
                if not shown.name.startswith("random")
            },
            "diversity": diversity(given, sets, judge),
        },
        _examples(given),
        {"judge": judge.name},
    )


def floor(given: Given, training: Photos, judge: Judge, reference: Tensor) -> dict[str, float]:
    """The distances to `reference` (N, C) of real photos that are not among them, about as many of each concept: what
    so few photos leave between two sets that differ in nothing.
    """
    concepts = [meta.get("concept") for meta in training.meta]
    each = math.ceil(len(reference) / len(given.labels))
    keep = first_of_each(concepts[::-1], given.labels, each)  # the last, in case `reference` are the first of them
    others = [Image.fromarray(training.pixels[len(concepts) - 1 - i].numpy()) for i in keep]
    return distances(judge(others)[1], reference) | {"count": len(others)}


def diversity(given: Given, sets: Sequence[PictureSet], judge: Judge, each: int = 8) -> Table:
    """How much the pictures of one concept differ in the judge's features: `each` pictures of a concept's first sound
    (`-n 8`), the rows of `sets` with as many pictures a concept, and each beside the real photos.
    """
    metas = given.sounds.meta
    first = first_of_each([meta["concept"] for meta in metas], given.labels, 1)
    points, indices = [given.points[i] for i in first for _ in range(each)], [*range(each)] * len(first)
    drawn = draw(given.translator, points, given.seed, indices)
    groups = given.truth([metas[i] for i in first]).repeat_interleave(each)
    found = {f"sound2img: {each} of one sound": spread(judge(drawn)[1], groups)}
    for shown in sets[:-1]:  # the last is the row before it, in another order
        few = first_of_each([given.labels[k] for k in shown.truth.tolist()], given.labels, each)
        features = judge([shown.pictures[i] for i in few])[1]
        found[shown.name] = spread(features, shown.truth[few])
    real = found[sets[0].name]
    return {
        name: {"distance": value} | ({"of real": value / real} if real > 0 else {})
        for name, value in found.items()
        if not math.isnan(value)
    }


def sentences(given: Given, judge: Judge, oracle: dict[str, float], each: int = 4) -> dict[str, Table]:
    """Whether what `mmx text2img` draws of whole sentences about the labels is what they are about: `each` pictures of
    each sentence. oracle: of the pictures at photos' own embeddings. Nothing for a bridge without a prior.
    """
    bridge, decoder, labels = given.translator.bridge, given.translator.decoder, given.labels
    if not isinstance(bridge, SoundBridge) or bridge.prior is None:
        return {}
    truth = torch.arange(len(labels)).repeat_interleave(each)
    table: Table = {}
    for frame in FRAMES.values():
        points = decoder.teacher.embed_texts([frame.format(label) for label in labels])
        draws = [generator_for(given.seed, index) for index in range(len(truth))]
        raw = torch.stack([bridge.sample(points[k], draw) for k, draw in zip(truth.tolist(), draws, strict=True)])
        logits, _ = judge(decoder.decode(raw, generators=draws))
        table[frame.format("...")] = top_accuracy(logits, truth) | {"count": len(truth)}
    table["oracle: a photo's own embedding"] = {key: oracle[key] for key in ("top1", "top5", "count")}
    table["random"] = {"top1": 1 / len(labels), "top5": min(1.0, 5 / len(labels))}
    return {"text2img": table}


def naming(given: Given, real: PictureSet) -> Table:
    """Top-1 and top-5 of naming each sound's concept by its text where the sounds' points are, and each photo's in the
    decoder's space; and of the same sounds changed, with the share that are named as before.
    """
    translator, labels = given.translator, given.labels
    embeds = translator.decoder.targets(real.pictures)
    texts = translator.decoder.teacher.embed_texts(translator.texts_of(labels)).cpu()
    named, truth = translator.text_points(labels).T, given.truth(given.sounds.meta)
    heard = given.points @ named
    changed = {
        name: torch.stack([translator.point(change(wave)) for wave in given.sounds.waves]) @ named
        for name, change in CHANGES.items()
    }
    return {
        "sound2img": top_accuracy(heard, truth) | {"same": 1.0},
        **{
            f"sound2img: {name}": top_accuracy(other, truth)
            | {"same": (other.argmax(1) == heard.argmax(1)).float().mean().item()}
            for name, other in changed.items()
        },
        "oracle: photos": top_accuracy(embeds @ texts.T, real.truth),
        "random": {"top1": 1 / len(labels), "top5": min(1.0, 5 / len(labels))},
    }


def picture_sets(given: Given, limit: int) -> list[PictureSet]:
    """Real photos, oracle, text, translated, random: at most `limit` pictures a concept in each."""
    translator, labels, seed = given.translator, given.labels, given.seed
    keep = first_of_each([meta.get("concept") for meta in given.photos.meta], labels, limit)
    real = [Image.fromarray(given.photos.pixels[i].numpy()) for i in keep]
    truth = given.truth([given.photos.meta[i] for i in keep])
    targets = translator.decoder.targets(real)
    sounds = first_of_each([meta["concept"] for meta in given.sounds.meta], labels, limit)
    heard = given.truth([given.sounds.meta[i] for i in sounds])
    translated = draw(translator, [given.points[i] for i in sounds], seed)
    from_text = draw_texts(translator, [labels[k] for k in heard.tolist()], seed + 1)
    shuffled = heard[torch.randperm(len(heard), generator=torch.Generator().manual_seed(seed))]
    return [
        PictureSet("real photos", real, truth),
        PictureSet("oracle: a photo's own embedding", decode(translator, targets, seed), truth),
        PictureSet("text: the concept's name", from_text, heard),
        PictureSet("sound2img", translated, heard),
        PictureSet("random: another sound's picture", translated, shuffled),
    ]


def _examples(given: Given) -> list[Example]:
    """Four pictures of each concept's first sound and of its second: what a person would be shown."""
    metas, waves = given.sounds.meta, given.sounds.waves
    picks = first_of_each([meta["concept"] for meta in metas], given.labels, 2)
    return [
        Example(metas[i]["concept"], waves[i], draw(given.translator, [given.points[i]] * 4, given.seed)) for i in picks
    ]
