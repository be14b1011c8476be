"""The photos and sounds of a folder's shards, all of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmx.bridges.frontends import sound_of
from mmx.data.items import refuse_many_bad, split_named
from mmx.data.shards import find_shards, stream
from mmx.errors import InputError
from mmx.media.audio import Waveform
from mmx.media.image import fit_square, read_image

T = TypeVar("T")


@dataclass
class Photos:
    """Photos of one size in memory. pixels: (N, S, S, 3) uint8; meta: one dict a photo, with its `key`."""

    pixels: Tensor
    meta: list[dict] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.meta)

    def split(self, name: str) -> Photos:
        """The photos whose metadata names this split."""
        keep = [i for i, meta in enumerate(self.meta) if _split_of(meta) == split_named(name)]
        return Photos(self.pixels[keep], [self.meta[i] for i in keep])


def load_photos(folder: Path, size: int, prefix: str = "images", split: str | None = None) -> Photos:
    """Every photo of a folder's image shards, or those of one split, squared to `size` pixels.

    Raises InputError when there are no shards, or when more than 5 % of the photos can't be read.
    """

    def decode(payload: bytes, name: str) -> np.ndarray:
        return np.asarray(fit_square(read_image(payload, name=name), size))

    pixels, meta = _load(folder, prefix, "image", decode, split)
    return Photos(torch.from_numpy(np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)), meta)


@dataclass
class Sounds:
    """Sounds in memory: 16 kHz mono waveforms of at least 3 s, and one dict of metadata each."""

    waves: list[Waveform]
    meta: list[dict]

    def __len__(self) -> int:
        return len(self.meta)

    def split(self, name: str) -> Sounds:
        """The sounds whose metadata names this split."""
        return self.only([i for i, meta in enumerate(self.meta) if _split_of(meta) == split_named(name)])

    def only(self, keep: Sequence[int]) -> Sounds:
        """Some of the sounds."""
        return Sounds([self.waves[i] for i in keep], [self.meta[i] for i in keep])


def load_sounds(folder: Path, prefix: str = "sounds") -> Sounds:
    """Every sound of a folder's `sounds-*.tar`. Raises InputError when more than 5 % can't be read.

    Of `voices`, only the speech is kept, and one without speech counts as bad.
    """
    waves, meta = _load(
        folder, prefix, "sound", lambda payload, name: sound_of(payload, name, voice=prefix == "voices")
    )
    return Sounds(waves, meta)


def _load(
    folder: Path, prefix: str, modality: str, decode: Callable[[bytes, str], T], split: str | None = None
) -> tuple[list[T], list[dict[str, Any]]]:
    """What is decoded of every sample of `prefix`-*.tar that holds the modality, and the metadata of each, with its
    `key`.
    """
    found, meta, bad = [], [], []
    for path in find_shards(folder, prefix):
        for sample in stream(path):
            payload = sample.of(modality)
            if payload is None or (split is not None and split_named(split) != _split_of(sample.meta)):
                continue
            try:
                found.append(decode(payload, sample.key))
            except InputError:
                bad.append(sample.key)
                continue
            meta.append(sample.meta | {"key": sample.key})
    refuse_many_bad(bad, len(bad) + len(meta), f"{folder}: ")
    return found, meta


def _split_of(meta: dict[str, Any]) -> str:
    return split_named(meta.get("split", "train"))
