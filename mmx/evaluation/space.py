"""The protocol of a joint space: naming, retrieval between all modalities, places, and what is said of absent things.

Every table has an oracle row or column and a random one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.data.edges import edges_of
from mmx.data.shards import find_shards, stream
from mmx.errors import InputError, UsageError
from mmx.evaluation.metrics import top_accuracy
from mmx.evaluation.places import Tile, places_of
from mmx.evaluation.report import Report, Table
from mmx.media.audio import Waveform, read_audio
from mmx.media.image import read_image
from mmx.recipes.base import Measuring
from mmx.spaces.base import Calibration, Space
from mmx.spaces.parts import batched
from mmx.spaces.tags import Tagger

LIMIT = 25  # media of each concept and modality
BATCH = 32
SHARDS = {"image": "images", "sound": "sounds"}
SAID = {"image": "photos", "sound": "sounds", "text": "texts", "array": "edge drawings"}


@dataclass(frozen=True)
class Side:
    """Media of one modality: the media, their unit vectors (N, D), and what each is of (N,), as numbers of concepts."""

    media: list
    vectors: Tensor
    truth: Tensor


def measure(space: Space, options: Measuring) -> Report:
    """The whole protocol on one split of labelled shards (`concept` in each .json). Raises InputError, UsageError."""
    data, limit = Path(options.data), options.limit or LIMIT
    found = {kind: _read(space, data, kind, options.split, limit) for kind in SHARDS if kind in space.encoders}
    concepts = sorted({name for own in found.values() for _, name in own})
    if len(concepts) < 4:
        raise UsageError(f"{options.data}: {len(concepts)} concepts in the split {options.split}", hint="at least four")
    sides = {kind: _side(space, kind, own, concepts) for kind, own in found.items()}
    if "array" in space.encoders and "image" in found:
        drawn = [(np.asarray(edges_of(picture)), name) for picture, name in found["image"]]
        sides["array"] = _side(space, "array", drawn, concepts)
    texts = space.encode_labels(concepts, next(iter(space.prompts)))
    trained = _read(space, data, "image", "train", limit) if "image" in found else []
    tables = {
        "naming": naming(space, sides, concepts, _side(space, "image", trained, concepts) if trained else None),
        "none_of_these": none_of_these(space, sides, concepts),
    }
    sides["text"] = Side(concepts, texts, torch.arange(len(concepts)))
    means = {kind: own.vectors.mean(0) for kind, own in sides.items()}
    tables |= {"retrieval": retrieval(sides, means, options.seed), "one_index": one_index(sides, means)}
    if space.cells is not None and "image" in sides:
        tiles = [Tile(picture, int(k)) for picture, k in zip(sides["image"].media, sides["image"].truth, strict=True)]
        asked = {SAID[kind]: sides[kind] for kind in ("text", "sound") if kind in sides}
        tables |= places_of(space, tiles, {name: (own.media, own.truth) for name, own in asked.items()}, options.seed)
    tables["data"] = {SAID[kind]: {"count": len(own.truth)} for kind, own in sides.items()}
    return Report(tables, about={"space": space.name, "fingerprint": space.fingerprint})


def _read(space: Space, data: Path, kind: str, split: str, limit: int) -> list[tuple[Image.Image | Waveform, str]]:
    """Media of a split, each with its concept, `limit` of each."""
    found: list[tuple[Image.Image | Waveform, str]] = []
    counts: dict[str, int] = {}
    for path in find_shards(data, SHARDS[kind]):
        for sample in stream(path):
            concept, payload = sample.meta.get("concept"), sample.of(kind)
            if not concept or payload is None or sample.meta.get("split", "train") != split:
                continue
            if counts.get(concept, 0) < limit:
                with suppress(InputError):
                    found.append((_decoded(space, kind, payload, sample.key), concept))
                    counts[concept] = counts.get(concept, 0) + 1
    return found


def _decoded(space: Space, kind: str, payload: bytes, name: str) -> Image.Image | Waveform:
    if kind == "image":
        return read_image(payload, name=name)
    return read_audio(payload, sample_rate=space.rate, window=space.window, name=name)


def _side(space: Space, kind: str, found: list, concepts: list[str]) -> Side:
    media = [medium for medium, _ in found]
    vectors = [space.encode(batch, kind) for batch in batched(media, BATCH)]
    return Side(media, torch.cat(vectors), torch.tensor([concepts.index(name) for _, name in found]))


def naming(space: Space, sides: dict[str, Side], concepts: list[str], trained: Side | None) -> Table:
    """Zero-shot classification among the concepts; the oracle names photos by the mean of training photos."""
    table = {
        SAID[kind]: top_accuracy(own.vectors @ space.encode_labels(concepts, kind).T, own.truth)
        for kind, own in sides.items()
        if kind in space.prompts
    }
    if trained is not None:
        means = F.normalize(of_each(trained.vectors, trained.truth, len(concepts)), dim=-1)
        table["oracle: photos, by the mean of training photos"] = top_accuracy(
            sides["image"].vectors @ means.T, sides["image"].truth
        )
    return table | {"random": {"top1": 1 / len(concepts), "top5": 5 / len(concepts)}}


def none_of_these(space: Space, sides: dict[str, Side], concepts: list[str]) -> Table:
    """How often media are said to be of none of the labels: with all labels, and without their own."""
    table: Table = {}
    for kind, own in sides.items():
        if kind not in (space.calibration or Calibration("")).tags or kind not in space.prompts:
            continue
        everything = Tagger(space, concepts)
        said = [everything.none_of_these(vector, kind) for vector in own.vectors]
        without = []
        for k, name in enumerate(concepts):
            others = Tagger(space, [other for other in concepts if other != name])
            without += [others.none_of_these(vector, kind) for vector in own.vectors[own.truth == k]]
        table[SAID[kind]] = {"with_its_label": float(np.mean(said)), "without_it": float(np.mean(without))}
    if table:
        table |= {"oracle": {"with_its_label": 0.0, "without_it": 1.0}}
        table |= {"random": {"with_its_label": 0.5, "without_it": 0.5}}
    return table


def of_each(vectors: Tensor, truth: Tensor, count: int) -> Tensor:
    """The mean vector of each of `count` classes: (N, D), (N,) → (count, D), zero of one without members."""
    sums = torch.zeros(count, vectors.shape[1]).index_add_(0, truth, vectors)
    return sums / torch.bincount(truth, minlength=count).clamp(min=1)[:, None]


def ranked(scores: Tensor, right: Tensor) -> dict[str, float]:
    """Precision at 1, 5 and 10 and mean average precision: scores, right (N, M); of queries with something to find."""
    right = right.gather(1, scores.argsort(1, descending=True)).float()
    right = right[right.any(1)]
    places = torch.arange(1, right.shape[1] + 1)
    precision = right.cumsum(1) / places
    found = {f"p{k}": precision[:, min(k, right.shape[1]) - 1].mean().item() for k in (1, 5, 10)}
    return found | {"map": ((precision * right).sum(1) / right.sum(1)).mean().item()}


def centred(own: Side, mean: Tensor) -> Tensor:
    """Unit vectors (N, D) less the mean of their modality."""
    return F.normalize(own.vectors - mean, dim=-1)


def retrieval(sides: dict[str, Side], means: dict[str, Tensor], seed: int) -> Table:
    """From each modality into each other, by concept.

    map_before: before centring. map_oracle: each query is the mean of what it should find. map_random: at random.
    """
    draw = torch.Generator().manual_seed(seed)
    table: Table = {}
    for a, queries in sides.items():
        for b, gallery in sides.items():
            if a == b:
                continue
            right = queries.truth[:, None] == gallery.truth
            there = centred(gallery, means[b])
            best = of_each(there, gallery.truth, int(max(queries.truth.max(), gallery.truth.max())) + 1)[queries.truth]
            ways = {
                "before": queries.vectors @ gallery.vectors.T,
                "oracle": F.normalize(best, dim=-1) @ there.T,
                "random": torch.rand(right.shape, generator=draw),
            }
            others = {f"map_{name}": ranked(scores, right)["map"] for name, scores in ways.items()}
            table[f"{SAID[a]} → {SAID[b]}"] = ranked(centred(queries, means[a]) @ there.T, right) | others
    return table


def one_index(sides: dict[str, Side], means: dict[str, Tensor]) -> Table:
    """All modalities in one gallery, as an index holds them: precision at 10, and the share of the query's own modality
    among these; before and after what `mmx search` does about the gap."""
    truth = torch.cat([own.truth for own in sides.values()])
    kinds = torch.cat([torch.full((len(own.truth),), k) for k, own in enumerate(sides.values())])
    plain = torch.cat([own.vectors for own in sides.values()])
    there = torch.cat([centred(own, means[kind]) for kind, own in sides.items()])
    scores = there @ there.T
    usual = torch.stack([scores[:, kinds == k].square().mean(1).sqrt() for k in range(len(sides))], 1)
    ways = {"as search does": scores / usual[:, kinds], "centred": scores, "before centring": plain @ plain.T}
    right = truth[:, None] == truth
    ways |= {"oracle": right.float(), "random": torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))}
    return {name: _mixed(own, right, kinds[:, None] == kinds) for name, own in ways.items()}


def _mixed(scores: Tensor, right: Tensor, same: Tensor) -> dict[str, float]:
    best = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -torch.inf).topk(10).indices
    return {
        "p10": right.gather(1, best).float().mean().item(),
        "own_modality": same.gather(1, best).float().mean().item(),
    }
