"""Where things are said to be: in mosaics of four photos, of which one is meant; and in pictures without them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.evaluation.report import Table
from mmx.media.audio import Waveform
from mmx.spaces.base import Space
from mmx.spaces.compass import Compass, known_means
from mmx.spaces.parts import Part
from mmx.spaces.place import Place, place_of

MOSAICS, SIDE = 60, 128  # how many, and pixels of the side of a tile
HALF = 0.5  # overlap, from which a tile is found (cIoU, Senocak et al. 2018)


@dataclass(frozen=True)
class Tile:
    """A photo, and the number of its concept."""

    picture: Image.Image
    concept: int


@dataclass(frozen=True)
class Mosaic:
    """Four photos of four things, two beside two."""

    picture: Image.Image
    concepts: tuple[int, ...]


def mosaics(tiles: list[Tile], count: int, seed: int) -> list[Mosaic]:
    """Of tiles drawn without order; the same for a seed."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        four = [tiles[k] for k in rng.choice(len(tiles), 4, replace=False)]
        if len({tile.concept for tile in four}) == 4:
            whole = Image.new("RGB", (2 * SIDE, 2 * SIDE))
            for k, tile in enumerate(four):
                small = tile.picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                whole.paste(small, (k % 2 * SIDE, k // 2 * SIDE))
            found.append(Mosaic(whole, tuple(tile.concept for tile in four)))
    return found


def places_of(space: Space, tiles: list[Tile], asked: dict[str, tuple[list, Tensor]], seed: int) -> dict[str, Table]:
    """Tables of where things are found, and of how often what is absent is said to be there. asked: by what they are
    called, media of a modality and the concepts that they are of (N,)."""
    pictures, rng = mosaics(tiles, MOSAICS, seed), np.random.default_rng(seed)
    compass = Compass(space, known_means(space))
    places: Table = {}
    absent: Table = {}
    for name, (media, truth) in asked.items():
        kind = "text" if isinstance(media[0], str) else "sound"
        ways = [compass.direction([Part(kind, medium)]) for medium in _as_asked(space, kind, media)]
        drawn = [_drawn(rng, truth, mosaic.concepts) for mosaic in pictures]
        with torch.inference_mode():
            found = [
                [place_of(space, mosaic.picture, ways[k]) for k in four]
                for mosaic, four in zip(pictures, drawn, strict=True)
            ]
        places[name] = _of_places(found)
        if space.calibration is not None and kind in space.calibration.places:
            at = space.calibration.places[kind].at
            absent[name] = _absent(space, tiles, (kind, at), _others(space, kind, ways, truth, compass), rng)
    places |= _peers(space, pictures, rng)
    return {"places": places} | ({"said_to_be_there": absent | _ENDS} if absent else {})


_ENDS: Table = {
    "oracle": {"there": 1.0, "absent": 0.0, "silence": 0.0, "noise": 0.0},
    "random": dict.fromkeys(("there", "absent", "silence", "noise"), 0.5),
}


def _as_asked(space: Space, kind: str, media: list) -> list:
    return [next(iter(space.prompts.values()))[0].format(name) for name in media] if kind == "text" else media


def _drawn(rng: np.random.Generator, truth: Tensor, concepts: tuple[int, ...]) -> list[int]:
    """For each tile a query that is of it; where there is none of its concept, any of those there are."""
    return [int(rng.choice(own if len(own := np.flatnonzero(truth == k)) else len(truth))) for k in concepts]


def _tile_of(place: Place) -> int:
    return (place.peak[0] >= SIDE) + 2 * (place.peak[1] >= SIDE)


def overlap(mask: np.ndarray, tile: int) -> float:
    """Intersection over union of a mask (H, W) of a mosaic and one of its tiles."""
    own = np.zeros(mask.shape, bool)
    height, width = mask.shape[0] // 2, mask.shape[1] // 2
    own[tile // 2 * height :, tile % 2 * width :][:height, :width] = True
    return float((mask & own).sum() / (mask | own).sum())


def _of_places(found: list[list[Place]]) -> dict[str, float]:
    """pointing: peaks in their tile. ciou: masks that overlap their tile by HALF; iou: by how much on the mean.
    interactive: pairs of two queries of one mosaic that light their own two tiles."""
    hits = np.array([[_tile_of(place) == k for k, place in enumerate(four)] for four in found])
    over = np.array([[overlap(place.mask, k) for k, place in enumerate(four)] for four in found])
    return {
        "pointing": float(hits.mean()),
        "ciou": float((over >= HALF).mean()),
        "iou": float(over.mean()),
        "interactive": float((hits[:, 0::2] & hits[:, 1::2]).mean()),
    }


def _peers(space: Space, pictures: list[Mosaic], rng: np.random.Generator) -> Table:
    """What knows nothing of the query: the middle, the whole picture, the part that differs most from the picture's
    mean (an object prior), and a tile at random."""
    standing = [[_most_unlike(space, mosaic.picture)] * 4 for mosaic in pictures]
    middle = {"pointing": 0.25, "ciou": 0.0, "iou": _middle(), "interactive": 0.0}
    picks = rng.integers(4, size=(1000, 4)) == np.arange(4)
    chance = {"pointing": float(picks.mean()), "interactive": float((picks[:, 0::2] & picks[:, 1::2]).mean())}
    return {
        "the middle": middle,
        "the whole picture": {"pointing": 0.25, "ciou": 0.0, "iou": 0.25, "interactive": 0.0},
        "an object prior": _of_places(standing),
        "random tile": chance | {"ciou": chance["pointing"], "iou": chance["pointing"]},
        "oracle: its tile": {"pointing": 1.0, "ciou": 1.0, "iou": 1.0, "interactive": 1.0},
    }


def _middle() -> float:
    """Of a square of a tile's size in the middle."""
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    return overlap(mask, 0)


@torch.inference_mode()
def _most_unlike(space: Space, picture: Image.Image) -> Place:
    cells = space.cells(picture)
    return place_of(space, picture, -F.normalize(cells.mean((0, 1)), dim=-1))


def _others(space: Space, kind: str, ways: list[Tensor], truth: Tensor, compass: Compass) -> dict[str, list]:
    """Queries by name: (direction, concept)."""
    found = {"there": list(zip(ways, truth.tolist(), strict=True))}
    if kind == "sound":
        rng, length = np.random.default_rng(0), int(space.window * space.rate)
        # of digital silence no command asks; a quiet room is some -80 dB
        noises = {"silence": rng.normal(0, 1e-4, length), "noise": rng.normal(0, 0.1, length)}
        for name, samples in noises.items():
            wave = Waveform(samples.astype(np.float32), space.rate)
            found[name] = [(compass.direction([Part("sound", wave)]), -1)]
    return found


@torch.inference_mode()
def _absent(
    space: Space, tiles: list[Tile], level: tuple[str, float], queries: dict[str, list], rng: np.random.Generator
) -> dict[str, float]:
    """How often single photos are said to hold what they are of, what they are not of, silence and noise."""
    said: dict[str, list[bool]] = {"there": [], "absent": []}
    for k in rng.choice(len(tiles), min(len(tiles), 2 * MOSAICS), replace=False):
        cells = space.cells(tiles[k].picture).flatten(0, 1)
        for name, own in queries.items():
            peaks = (cells @ torch.stack([way for way, _ in own]).T).amax(0).tolist()
            for peak, (_, concept) in zip(peaks, own, strict=True):
                where = name if name != "there" else "there" if concept == tiles[k].concept else "absent"
                said.setdefault(where, []).append(round(peak, 4) >= level[1])
    return {name: float(np.mean(answers)) for name, answers in said.items() if answers}
