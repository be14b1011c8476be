"""The protocol of pictures from anybody's pairs: no labels, no judge; the decoder's frozen teacher measures in its own
space.

Retrieval both ways, how like the target each picture is (with a CLIP decoder that is the CLIP score), FID and KID in
the teacher's features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from mmx.data.items import split_named
from mmx.data.manifest import Manifest, read_manifest
from mmx.errors import InputError, UsageError
from mmx.evaluation.metrics import decode, distances, draw
from mmx.evaluation.report import Example, Report, Table
from mmx.media.image import read_image
from mmx.recipes.base import Measuring
from mmx.training.bridges.measures import retrieval, spread
from mmx.translate.base import Translator
from mmx.translate.sound2img import SoundTranslator

LIMIT, SHOWN = 200, 24


@dataclass
class ReadPairs:
    """Pairs that could be read, the sources' names, and how many there are."""

    sources: list[Any]
    targets: list[Any]
    names: list[str]
    counts: Table


def measure(translator: SoundTranslator, options: Measuring) -> Report:
    """The whole protocol on one split of a manifest, of two folders or of shards that hold both sides.

    Raises InputError, UsageError.
    """
    found = read_pairs(options, translator, lambda data, name: read_image(data, name=name))
    report = evaluate(translator, found.sources, found.targets, found.names, options.seed)
    report.tables["data"] = found.counts
    return report


def read_pairs(options: Measuring, translator: Translator, target_of: Callable[[bytes, str], Any]) -> ReadPairs:
    """Pairs of a split, spread over it. target_of: a target's bytes and name → what is compared with.

    Raises InputError where fewer than two can be read, UsageError.
    """
    manifest = read_manifest(options.data, translator.task)
    if not manifest.direct:
        raise UsageError(f"{options.data} pairs by label", hint="this protocol is for pairs")
    picks = _of_split(manifest, options.split, options.limit or LIMIT)
    sources, targets, names, unread = [], [], [], 0
    for index in picks:
        source, target = manifest.sources.items[index], manifest.targets.items[index]
        try:
            both = translator.read(source.read(), name=source.name), target_of(target.read(), target.name)
        except InputError:
            unread += 1
            continue
        sources.append(both[0])
        targets.append(both[1])
        names.append(source.name)
    if len(targets) < 2:
        raise InputError(f"{options.data}: {len(targets)} readable pairs in the split {options.split}")
    return ReadPairs(sources, targets, names, {options.split: {"pairs": len(targets), "unreadable": unread}})


def _of_split(manifest: Manifest, split: str, limit: int) -> list[int]:
    names = manifest.sources.split_names
    found = [i for i, number in enumerate(manifest.sources.splits) if names[number] == split_named(split)]
    if not found:
        raise UsageError(
            f"--split {split}: the data has no such split", hint=f"it has: {', '.join(manifest.sources.counts())}"
        )
    return [found[i] for i in spread(len(found), limit).tolist()]


def evaluate(
    translator: SoundTranslator, sources: list, targets: list[Image.Image], names: list[str], seed: int = 0
) -> Report:
    """Tables, each with an oracle row (the target itself, mirrored, or its own embedding decoded) and a random row."""
    teacher = translator.decoder.targets
    heard = [translator.point(source) for source in sources]
    points = torch.stack([translator.among_targets(point, seed, index) for index, point in enumerate(heard)])
    raw = teacher(targets)
    mirrored = teacher([ImageOps.mirror(picture) for picture in targets])
    other = torch.arange(len(targets)).roll(1)
    own = torch.arange(len(targets))
    drawn = draw(translator, heard, seed)
    rows = {
        "oracle: a target's own embedding": (decode(translator, raw, seed), own),
        translator.task: (drawn, own),
        "random: another source's picture": (drawn, other),
    }
    ways = {"oracle: the target mirrored": mirrored, translator.task: points, "random: another source": points[other]}
    tables = {
        "retrieval": {
            name: {k.removeprefix("val_"): v for k, v in retrieval(found, raw, own, own).items()}
            for name, found in ways.items()
        },
        "pictures": {
            name: {"similarity": similarity(teacher(pictures)[order], raw)} | distances(teacher(pictures), raw)
            for name, (pictures, order) in rows.items()
        },
    }
    tables["pictures"] = {"real targets": {"similarity": similarity(mirrored, raw)}} | tables["pictures"]
    examples = [Example(names[i], sources[i], [drawn[i], targets[i]]) for i in range(min(SHOWN, len(names)))]
    return Report(tables, examples)


def similarity(found: Tensor, wanted: Tensor) -> float:
    """Mean cosine of embeddings (N, D) to those of the targets."""
    return F.cosine_similarity(found, wanted).mean().item()
