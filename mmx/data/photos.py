"""Training data: WebDataset shards or paired folders → samples in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmx.bridges.frontends import sound_of
from mmx.errors import InputError
from mmx.media.audio import Waveform
from mmx.media.image import fit_square, read_image

MAX_BAD = 0.05  # the share of samples that may be unreadable before a run stops

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
SOUND_SUFFIXES = ("ogg", "wav", "flac", "mp3")


def read_shards(paths: list[Path]) -> Iterator[dict]:
    """The samples of WebDataset shards in order: dicts of `__key__` and bytes by suffix."""
    import webdataset

    if not paths:
        raise InputError("no shards to read", hint="give a folder that holds .tar shards")
    yield from webdataset.WebDataset([str(path) for path in paths], shardshuffle=False, empty_check=False)


def shards(folder: Path, prefix: str) -> list[Path]:
    """The shards `prefix-*.tar` of a folder, sorted."""
    found = sorted(Path(folder).glob(f"{prefix}-*.tar"))
    if not found:
        raise InputError(f"{folder}: no {prefix}-*.tar shards here", hint="see README.md, 'Train your own'")
    return found


@dataclass
class Photos:
    """Photos of one size in memory. pixels: (N, S, S, 3) uint8; meta: one dict a photo, with its `key`."""

    pixels: Tensor
    meta: list[dict] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.meta)

    def split(self, name: str) -> Photos:
        """The photos whose metadata names this split."""
        keep = [i for i, meta in enumerate(self.meta) if meta.get("split", "train") == name]
        return Photos(self.pixels[keep], [self.meta[i] for i in keep])


def load_photos(folder: Path, size: int, prefix: str = "images") -> Photos:
    """Every photo of a folder's image shards, squared to `size` pixels.

    Raises InputError when there are no shards, or when more than 5 % of the photos can't be read.
    """
    pixels, meta, bad = [], [], []
    for sample in read_shards(shards(folder, prefix)):
        payload = next((sample[s] for s in IMAGE_SUFFIXES if s in sample), None)
        if payload is None:
            continue
        try:
            image = fit_square(read_image(io.BytesIO(payload), name=sample["__key__"]), size)
        except InputError:
            bad.append(sample["__key__"])
            continue
        pixels.append(np.asarray(image))
        meta.append(json.loads(sample.get("json", b"{}")) | {"key": sample["__key__"]})
    _refuse_many_bad(folder, bad, len(meta))
    return Photos(torch.from_numpy(np.stack(pixels)), meta)


@dataclass
class Sounds:
    """Sounds in memory: 16 kHz mono waveforms of at least 3 s, and one dict of metadata each."""

    waves: list[Waveform]
    meta: list[dict]

    def __len__(self) -> int:
        return len(self.meta)

    def split(self, name: str) -> Sounds:
        """The sounds whose metadata names this split."""
        keep = [i for i, meta in enumerate(self.meta) if meta.get("split", "train") == name]
        return Sounds([self.waves[i] for i in keep], [self.meta[i] for i in keep])


def load_sounds(folder: Path, prefix: str = "sounds") -> Sounds:
    """Every sound of a folder's `sounds-*.tar`. Raises InputError when more than 5 % can't be read.

    Of `voices`, only the speech is kept, and one without speech counts as bad.
    """
    waves, meta, bad = [], [], []
    for sample in read_shards(shards(folder, prefix)):
        payload = next((sample[s] for s in SOUND_SUFFIXES if s in sample), None)
        if payload is None:
            continue
        try:
            waves.append(sound_of(payload, sample["__key__"], voice=prefix == "voices"))
        except InputError:
            bad.append(sample["__key__"])
            continue
        meta.append(json.loads(sample.get("json", b"{}")) | {"key": sample["__key__"]})
    _refuse_many_bad(folder, bad, len(meta))
    return Sounds(waves, meta)


def _refuse_many_bad(folder: Path, bad: list[str], good: int) -> None:
    if len(bad) > MAX_BAD * (len(bad) + good):
        raise InputError(
            f"{folder}: {len(bad)} of {len(bad) + good} samples can't be read, such as {bad[0]}",
            hint="mend or remove them; a run stops when more than 5 % are bad",
        )
