"""What of a space can only be measured: the means of its modalities, and which similarity says that something is there.

Kept in a file beside the model, or in the user's cache, and heeded as long as the space is the one that was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.data.shards import find_shards, stream
from mmx.digest import cache_root
from mmx.errors import InputError, UsageError
from mmx.media.audio import Waveform
from mmx.models.store import CALIBRATION
from mmx.spaces.base import Calibration, Space, Threshold
from mmx.spaces.parts import Part, embedded, parts_of
from mmx.spaces.tags import evidence

SCHEMA = "mmx.calibration/2"
PREFIXES = {"image": "images", "sound": "sounds"}
STEP = 1e-5  # of similarities; smaller differences are none
FALSE = 0.1  # the share of absent things that may be called present, on other data, too
HISSES = 8  # white noises that are asked for
SURE, DRAWS = 0.9, 200  # in this share of so many draws of as much data no more of them are


def as_json(calibration: Calibration) -> bytes:
    """As it is kept."""
    return json.dumps({"schema": SCHEMA} | asdict(calibration)).encode()


def _read(text: bytes) -> Calibration:
    """What `as_json` wrote. Raises ValueError, KeyError, TypeError."""
    about = json.loads(text)
    if about["schema"] != SCHEMA:
        raise ValueError("thresholds of another version mean something else")
    tables = {name: {m: Threshold(**t) for m, t in about[name].items()} for name in ("tags", "places")}
    return Calibration(about["fingerprint"], about["means"], **tables)


def kept_at(fingerprint: str) -> Path:
    """Where the user's own calibration of a space is kept."""
    return cache_root() / "spaces" / f"{fingerprint}.json"


def find_calibration(folder: Path, fingerprint: str) -> Calibration | None:
    """That of a space, from the user's cache or beside its model; None where neither has one of this very space."""
    for path in (kept_at(fingerprint), folder / CALIBRATION):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = _read(path.read_bytes())
            if found.fingerprint == fingerprint:
                return found
    return None


@dataclass(frozen=True)
class Labelled:
    """Vectors (N, D) of one modality, the media themselves where they are pictures, and what each is of."""

    vectors: Tensor
    media: list[Any]
    concepts: list[str]


def calibrate(space: Space, data: Path, *, split: str = "val", limit: int = 20) -> Calibration:
    """Measure a space on labelled shards (`concept` in each .json), `limit` media of each concept and modality.

    Raises InputError, UsageError where there are none of them.
    """
    able = [modality for modality in PREFIXES if modality in space.encoders]
    found = {modality: _labelled(space, data, modality, split, limit) for modality in able}
    found = {modality: own for modality, own in found.items() if len(set(own.concepts)) > 1}
    if not found:
        raise UsageError(f"{data}: no media of two and more concepts in the split {split}")
    labels = sorted({concept for own in found.values() for concept in own.concepts})
    means = {modality: own.vectors.mean(0) for modality, own in found.items()}
    texts = space.encode_labels(labels, next(iter(space.prompts)))
    means["text"] = texts.mean(0)
    tags = {modality: _tags(space, own, labels, modality) for modality, own in found.items()}
    places = {}
    if space.cells is not None and "image" in found:
        named = Labelled(texts, [], labels)
        asked = {"text": named} | ({"sound": found["sound"]} if "sound" in found else {})
        nothing = {"sound": hissing(space)} if "sound" in found else {}
        places = {
            name: _places(space, found["image"], own, means[name], nothing.get(name)) for name, own in asked.items()
        }
    rounded = {modality: [round(value, 6) for value in mean.tolist()] for modality, mean in means.items()}
    return Calibration(space.fingerprint, rounded, tags, places)


def _labelled(space: Space, data: Path, modality: str, split: str, limit: int) -> Labelled:
    parts, concepts = [], []
    for payload, concept in _samples(data, modality, split, limit):
        with suppress(InputError):
            parts += [next(iter(parts_of(space, payload, f"{concept}.{'png' if modality == 'image' else 'wav'}")))]
            concepts.append(concept)
    vectors = [vector for _, vector in embedded(space, parts)]
    media = [part.medium for part in parts] if modality == "image" else []
    return Labelled(torch.stack(vectors) if vectors else torch.zeros(0, space.dim), media, concepts)


def _samples(data: Path, modality: str, split: str, limit: int) -> Iterator[tuple[bytes, str]]:
    counts: dict[str, int] = {}
    for path in find_shards(data, PREFIXES[modality]):
        for sample in stream(path):
            concept, payload = sample.meta.get("concept"), sample.of(modality)
            if not concept or payload is None or sample.meta.get("split", "train") != split:
                continue
            counts[concept] = counts.get(concept, 0) + 1
            if counts[concept] <= limit:
                yield payload, concept


def _tags(space: Space, own: Labelled, labels: Sequence[str], modality: str) -> Threshold:
    """Of what speaks for any label: with all labels at hand, and with all but the true one."""
    similar = own.vectors @ space.encode_labels(labels, modality).T
    true = torch.tensor([labels.index(concept) for concept in own.concepts])
    without = similar.scatter(1, true[:, None], -torch.inf)
    there, absent = (evidence(found, space.scale[modality]) for found in (similar, without))
    levels = torch.cat((there, absent)).sort().values
    kept = torch.searchsorted(there.sort().values, levels), torch.searchsorted(absent.sort().values, levels)
    best = int((kept[1] / len(absent) - kept[0] / len(there)).argmax())  # Youden's index
    return _threshold(float(levels[best]) - STEP, there, absent)


def hissing(space: Space) -> Tensor:
    """What a space makes of white noise, as of a room without any other sound: vectors (HISSES, D)."""
    rng, length = np.random.default_rng(1), int(space.window * space.rate)
    waves = [Waveform(rng.normal(0, 0.1, length).astype(np.float32), space.rate) for _ in range(HISSES)]
    return torch.stack([vector for _, vector in embedded(space, [Part("sound", wave) for wave in waves])])


def _places(
    space: Space, pictures: Labelled, asked: Labelled, mean: Tensor, nothing: Tensor | None = None
) -> Threshold:
    """Of the warmest cell: of pictures of what is asked for, and of others. nothing (N, D): queries that no picture
    shows; as few pictures may be said to."""
    ways = F.normalize(asked.vectors - mean, dim=-1)
    if nothing is not None:
        ways = torch.cat((ways, F.normalize(nothing - mean, dim=-1)))
    with torch.inference_mode():
        found = torch.stack([(space.cells(picture).flatten(0, 1) @ ways.T).amax(0) for picture in pictures.media])
    peaks, shown = found.tensor_split([len(asked.vectors)], 1)
    right = torch.tensor([[own == name for name in asked.concepts] for own in pictures.concepts])
    if not right.any() or right.all():
        raise UsageError("pictures and sounds of the data are of other things", hint="both need the same concepts")
    level = safe_level(peaks.numpy(), ~right.numpy())
    if nothing is not None:
        level = max(level, safe_level(shown.numpy(), np.ones(shown.shape, bool)))
    return _threshold(level + STEP, peaks[right], peaks[~right])


def safe_level(scores: np.ndarray, absent: np.ndarray) -> float:
    """Above which at most FALSE of what is absent scores, with a margin for pictures and queries not seen.

    scores (P, Q): of each picture with each query; absent (P, Q): which of these count. All pairs of a picture, and of
    a query, are high together, so both are drawn anew, with replacement (the pigeonhole bootstrap, Owen 2007): the
    level is one that suffices in SURE of the draws.
    """
    rng, (pictures, queries) = np.random.default_rng(0), scores.shape
    row, column = np.nonzero(absent)
    order = np.argsort(-scores[row, column], kind="stable")
    row, column = row[order], column[order]
    falling, levels = scores[row, column], []
    for _ in range(DRAWS):
        drawn = [rng.multinomial(count, np.full(count, 1 / count)) for count in (pictures, queries)]
        above = np.cumsum(drawn[0][row] * drawn[1][column])
        levels.append(falling[np.searchsorted(above[:-1], FALSE * above[-1], side="right")])
    return float(np.quantile(levels, SURE, method="higher"))


def _threshold(at: float, there: Tensor, absent: Tensor) -> Threshold:
    at = round(at, 6)
    shares = [round(float((values >= at).float().mean()), 4) for values in (there, absent)]
    return Threshold(at, *shares)
