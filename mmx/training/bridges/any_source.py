"""How each kind of source is seen or heard in training: its frontend, and what the bridge's config says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mmx.bridges.array_frontend import ArrayKind, Arrays
from mmx.bridges.frontends import Frontend, Image
from mmx.bridges.image_encoders import open_image_encoder
from mmx.bridges.text_encoders import Words, open_text_encoder
from mmx.data.manifest import Manifest
from mmx.data.pairs import Rows
from mmx.data.shards import stream
from mmx.errors import InputError, UsageError
from mmx.media.arrays import axes_of, read_array
from mmx.models.store import locate
from mmx.training.bridges.base import BridgeRecipe
from mmx.training.bridges.measures import spread
from mmx.training.bridges.points import heard

PEEKED = 16  # arrays whose shapes say which kind all are
SERIES = (16, 1024)  # points of a window of a series, at least and at most
MAP = 64  # pixels of a side, that maps are seen at
MEASURED = 2048  # rows, by which channels are standardised


class Seen(NamedTuple):
    """A frontend, and what the bridge's config says of it."""

    frontend: Frontend
    about: dict[str, Any]


def _sound(recipe: BridgeRecipe, manifest: Manifest) -> Seen:
    return Seen(*heard(recipe, voice=False))


def _voice(recipe: BridgeRecipe, manifest: Manifest) -> Seen:
    return Seen(*heard(recipe, voice=True))


def _image(recipe: BridgeRecipe, manifest: Manifest) -> Seen:
    encoder = open_image_encoder(recipe.encoder or locate(None, recipe.task, "encoder"), recipe.team.device)
    source = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    sizes = recipe.sizes | {"inputs": encoder.width}
    return Seen(Image(encoder), {"architecture": "patches", "sizes": sizes, "source": source})


def _text(recipe: BridgeRecipe, manifest: Manifest) -> Seen:
    encoder = open_text_encoder(recipe.encoder or locate(None, recipe.task, "encoder"), recipe.team.device)
    source = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    sizes = recipe.sizes | {"inputs": encoder.dim}
    return Seen(Words(encoder), {"architecture": "text", "sizes": sizes, "source": source})


def _array(recipe: BridgeRecipe, manifest: Manifest) -> Seen:
    """By the shapes of the first arrays, which must be of one kind. Raises InputError, UsageError."""
    if recipe.encoder is not None:
        raise UsageError(f"--encoder {recipe.encoder.name}: arrays are seen without one", hint="leave it out")
    kind = _kind_of(manifest, recipe.data, drawing=recipe.as_ == "drawing")
    kind = replace(kind, depth=recipe.as_ == "depth")
    sizes = recipe.sizes | {"axes": kind.axes, "inputs": kind.channels}
    return Seen(Arrays(kind), {"architecture": "array", "sizes": sizes, "array": kind.as_dict()})


SOURCES: dict[str, Callable[[BridgeRecipe, Manifest], Seen]] = {
    "sound": _sound,
    "voice": _voice,
    "img": _image,
    "text": _text,
    "array": _array,
}
NAMES = {"img": "image"}  # of sources, as a bridge's config has them


def source_of(recipe: BridgeRecipe, manifest: Manifest, origin: str) -> Seen:
    """How a source is seen; origin: a key of SOURCES. Raises InputError, ModelError, UsageError."""
    seen = SOURCES[origin](recipe, manifest)
    return Seen(seen.frontend, seen.about | {"sources": (NAMES.get(origin, origin),)})


def standardised(frontend: Frontend, rows: Rows) -> Frontend:
    """The frontend that knows the mean and deviation of training data, where it asks for them."""
    if not isinstance(frontend, Arrays):
        return frontend
    return frontend.measured([rows.get(pick) for pick in spread(len(rows), MEASURED).tolist()])


def _kind_of(manifest: Manifest, data: str, *, drawing: bool) -> ArrayKind:
    if drawing:  # of any size, in any colours
        return ArrayKind(2, 1, MAP, drawing=True)
    first: tuple[str, np.ndarray] | None = None
    lengths = []
    for name, payload in _payloads(manifest):
        try:
            array = read_array(payload, name)
        except InputError:
            continue
        first = first or (name, array)
        if axes_of(array) != axes_of(first[1]):
            raise InputError(f"{name} is {array.shape} and {first[0]} {first[1].shape}", hint="one kind of array each")
        lengths.append(max(array.shape))
        if len(lengths) == PEEKED:
            break
    if first is None:
        raise InputError(f"{data}: no array here can be read", hint="mmx data check says what is wrong with each")
    axes, channels = axes_of(first[1])
    window = 2 ** round(math.log2(float(np.median(lengths))))
    return ArrayKind(axes, channels, MAP if axes == 2 else max(SERIES[0], min(SERIES[1], window)))


def _payloads(manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Arrays of the data, and what they are called."""
    for shard in manifest.remote:
        for sample in stream(shard):
            if (payload := sample.of("array")) is not None:
                yield sample.key, payload
    for item in manifest.sources.items:
        yield item.name, item.read()
