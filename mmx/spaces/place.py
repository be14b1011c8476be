"""Where in a picture something is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.ndimage import label
from torch import Tensor

from mmx.errors import ModelError
from mmx.media.image import png_bytes, read_image, to_rgb
from mmx.media.show import INKS
from mmx.spaces.answers import Consulted, Note
from mmx.spaces.base import Space
from mmx.spaces.compass import Compass, known_means
from mmx.spaces.query import Term
from mmx.spaces.question import Answer, Question

FINE = 8  # times as many rows and columns as there are cells, in which a place is looked for
LEVEL = 0.5  # of the way from a heat map's middle to its peak: what is warmer belongs to the place


@dataclass(frozen=True)
class Place:
    """Where something is.

    heat (H, W): how much each part of the picture points where the query does. score: of the warmest part. peak, box:
    that part, and what around it is warm, in pixels of the picture; mask (H, W): the same. here: whether it is in the
    picture at all; None where that was not calibrated.
    """

    heat: np.ndarray
    mask: np.ndarray
    score: float
    peak: tuple[int, int]
    box: tuple[int, int, int, int]
    here: bool | None = None


@torch.inference_mode()
def find_place(space: Space, picture: Image.Image, terms: Sequence[Term], stdin: Callable[[], bytes] = bytes) -> Place:
    """Where in an RGB picture of any size a query is. Raises InputError, ModelError, UsageError."""
    place = place_of(space, picture, Compass(space, known_means(space)).query(terms, stdin))
    known = space.calibration.places if space.calibration else {}
    levels = [known[modality].at for modality in {_modality(term) for term in terms} if modality in known]
    return replace(place, here=place.score >= max(levels)) if levels else place


def _modality(term: Term) -> str:
    """By which of the calibrated modalities a term is judged: whatever is in a file, as a sound."""
    return "text" if term.kind == "text" else "sound"


@torch.inference_mode()
def place_of(space: Space, picture: Image.Image, query: Tensor) -> Place:
    """Where a direction (D,) is in an RGB picture. Raises ModelError for a space that sees no parts."""
    if space.cells is None:
        raise ModelError(
            f"the space {space.name} can't say where something is", hint="an image decoder's, CLIP's or SigLIP's can"
        )
    heat = space.cells(picture) @ query
    fine = F.interpolate(heat[None, None], scale_factor=FINE, mode="bilinear", align_corners=False)[0, 0].numpy()
    row, column = np.unravel_index(int(fine.argmax()), fine.shape)
    middle = float(np.median(fine))
    parts, _ = label(fine >= middle + LEVEL * (float(fine.max()) - middle))
    mask = parts == parts[row, column]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    across, down = picture.width / fine.shape[1], picture.height / fine.shape[0]
    return Place(
        fine,
        mask,
        round(float(heat.max()), 4),
        (min(int((column + 0.5) * across), picture.width - 1), min(int((row + 0.5) * down), picture.height - 1)),
        (
            int(columns[0] * across),
            int(rows[0] * down),
            min(math.ceil((columns[-1] + 1) * across), picture.width),
            min(math.ceil((rows[-1] + 1) * down), picture.height),
        ),
    )


def draw_place(picture: Image.Image, place: Place) -> Image.Image:
    """The picture under its heat, with the box."""
    heat = np.clip((place.heat - np.median(place.heat)) / max(float(np.ptp(place.heat)), 1e-9), 0, 1)
    strength = Image.fromarray((heat / max(float(heat.max()), 1e-9) * 255).astype(np.uint8))
    strength = strength.resize(picture.size, Image.Resampling.BILINEAR)
    levels, at = np.linspace(0, 255, len(INKS)), np.asarray(strength, np.float32)
    inks = np.stack([np.interp(at, levels, [ink[k] for ink in INKS]) for k in range(3)], -1).astype(np.uint8)
    drawn = Image.composite(Image.fromarray(inks), to_rgb(picture), strength.point(lambda value: value * 0.7))
    left, top, right, bottom = place.box
    width = max(1, max(picture.size) // 150)
    ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=(255, 60, 60), width=width)
    return drawn


def draw_mask(picture: Image.Image, place: Place) -> Image.Image:
    """White where the place is, black elsewhere; of the picture's size."""
    mask = Image.fromarray((place.mask * 255).astype(np.uint8))
    return mask.resize(picture.size, Image.Resampling.NEAREST).convert("RGB")


def localize(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """Where in a picture, the first of the terms, the others are; what is to be drawn of it, in the options' order."""
    options, (term, *terms) = question.options, question.terms
    picture = read_image(term.source, name=term.name)
    place = find_place(consulted.space, picture, terms)
    wanted = [draw for draw, asked in ((draw_place, options.heat), (draw_mask, options.mask)) if asked]
    about = {"here": place.here, "peak": list(place.peak), "box": list(place.box), "score": place.score}
    yield Answer([about], [png_bytes(draw(picture, place)) for draw in wanted])
