"""What belongs together: folders with equal stems, JSONL and CSV manifests, and WebDataset shards → two sides of items with labels.

Nothing is read here but names, metadata and the heads of tars; what is kept is a few dozen bytes an item.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmx.errors import InputError, NetworkError
from mmx.training.cache import Item, cache_root

SUFFIXES = {
    "sound": ("ogg", "wav", "flac", "mp3", "m4a", "aac", "opus"),
    "image": ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"),
}
SPLITS = ("train", "val")  # any other name is a split that training never touches
SECONDS = "hints"  # the folder of pictures that a bridge with two sources sees beside each sound
HELD_OUT = 20  # one of so many pairs that name no split is held out


@dataclass(frozen=True)
class Kind:
    """What one side of a task is made of: the modality, the prefix of its shards, and the names of its folder."""

    modality: str
    prefix: str
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Pairing:
    """Both sides of a task, and the keys of the metadata that pair them, the best first."""

    source: Kind
    target: Kind
    keys: tuple[str, ...]


PAIRINGS = {
    "sound2img": Pairing(
        Kind("sound", "sounds", ("audios", "sounds", "sources")),
        Kind("image", "images", ("images", "targets")),
        ("concept",),
    ),
    "voice2face": Pairing(
        Kind("sound", "voices", ("audios", "voices", "sources")),
        Kind("image", "faces", ("images", "faces", "targets")),
        ("identity", "gender"),
    ),
    "img2speech": Pairing(
        Kind("image", "images", ("images", "sources")),
        Kind("sound", "spoken", ("audios", "spoken", "targets")),
        ("synset",),
    ),
}


class Items(Sequence[Item]):
    """Items in a few dozen bytes each: names and paths in one string of bytes, places in arrays."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        self._paths: dict[str, int] = {}
        self._path_of, self._offset, self._size = array("i"), array("q"), array("q")

    def append(self, name: str, path: str, offset: int = 0, size: int = -1) -> None:
        """Add an item. A name that equals the path is kept once."""
        alone = size < 0
        self._text += (name if not alone else path).encode()
        self._ends.append(len(self._text))
        self._path_of.append(-1 if alone else self._paths.setdefault(path, len(self._paths)))
        self._offset.append(offset)
        self._size.append(size)

    def __len__(self) -> int:
        return len(self._size)

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        text = self._text[self._ends[index] : self._ends[index + 1]].decode()
        if self._path_of[index] < 0:
            return Item(text, text)
        if len(self._paths) != len(getattr(self, "_by_number", ())):
            self._by_number = list(self._paths)
        return Item(text, self._by_number[self._path_of[index]], self._offset[index], self._size[index])

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))


@dataclass
class Side:
    """One side of the pairs: items, the number of each one's label (-1: none), of its split (index into SPLITS, 2: other), its weight."""

    items: Items = field(default_factory=Items)
    labels: array = field(default_factory=lambda: array("i"))
    splits: array = field(default_factory=lambda: array("b"))
    weights: array = field(default_factory=lambda: array("f"))

    def add(self, split: str, label: int, weight: float, *place: Any) -> None:
        """Add an item and what is known of it."""
        self.items.append(*place)
        self.labels.append(label)
        self.splits.append(SPLITS.index(split) if split in SPLITS else len(SPLITS))
        self.weights.append(weight)


@dataclass
class Manifest:
    """Sources and targets. direct: equal positions belong together; otherwise equal labels do."""

    sources: Side
    targets: Side
    direct: bool
    seconds: Side | None = None  # of direct pairs: pictures to take the sources with, where there are any
    label_names: list[str] = field(default_factory=list)
    key: str = ""  # of the metadata that the labels come from

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """The label numbers of both sides; direct pairs without labels are each their own."""
        both = tuple(np.frombuffer(side.labels, np.int32).astype(np.int64) for side in (self.sources, self.targets))
        if self.direct and not self.label_names:
            own = np.arange(len(both[0]))
            return own, own
        return both


def read_manifest(data: str, task: str) -> Manifest:
    """A folder, a .jsonl or .csv file, or a URL of shards → what belongs together. Raises InputError."""
    pairing = PAIRINGS[task]
    path = Path(data)
    if "://" in data or data.endswith(".tar"):
        return _from_shards(fetch(data), pairing, data)
    if path.suffix in (".jsonl", ".csv"):
        return _from_rows(path)
    folders = [
        next((path / f for f in kind.folders if (path / f).is_dir()), None) for kind in (pairing.source, pairing.target)
    ]
    if all(folders):
        return _from_folders(*folders, pairing)
    if any(
        (path / f"{kind.prefix}-000.tar").exists() or list(path.glob(f"{kind.prefix}-*.tar"))
        for kind in (pairing.source, pairing.target)
    ):
        return _from_two_kinds_of_shards(path, pairing)
    found = sorted(map(str, path.glob("*.tar")))
    if not found:
        wanted = f"{pairing.source.folders[0]}/ and {pairing.target.folders[0]}/, or {pairing.source.prefix}-*.tar and {pairing.target.prefix}-*.tar"
        raise InputError(f"{data}: no training data here", hint=f"give {wanted}, or a .jsonl or .csv manifest")
    return _from_shards(found, pairing, data)


def held_out(name: str) -> str:
    """The split of a pair that names none: by its name, so that it is the same in every run."""
    return "val" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0 else "train"


def _from_folders(sources: Path, targets: Path, pairing: Pairing) -> Manifest:
    by_stem = []
    kinds = [(sources, pairing.source.modality), (targets, pairing.target.modality)]
    if (sources.parent / SECONDS).is_dir():
        kinds.append((sources.parent / SECONDS, "image"))
    for folder, modality in kinds:
        files = (p for p in folder.rglob("*") if p.suffix[1:].lower() in SUFFIXES[modality])
        by_stem.append({p.relative_to(folder).with_suffix("").as_posix(): str(p) for p in files})
    manifest = Manifest(Side(), Side(), direct=True, seconds=Side() if len(kinds) > 2 else None)
    sides = [manifest.sources, manifest.targets, manifest.seconds]
    for stem in sorted(set.intersection(*(set(paths) for paths in by_stem))):
        for side, paths in zip(sides, by_stem, strict=False):
            side.add(held_out(stem), -1, 1.0, paths[stem], paths[stem])
    if not len(manifest.sources.items):
        raise InputError(f"{sources.parent}: no file in {sources.name}/ has the stem of a file in {targets.name}/")
    return manifest


def _from_rows(path: Path) -> Manifest:
    """Rows of source, target and optionally source2, split, weight, label; paths are relative to the manifest's folder."""
    manifest, numbers = Manifest(Side(), Side(), direct=True, key="label"), {}
    for line, row in _rows(path):
        if not isinstance(row, dict) or not row.get("source") or not row.get("target"):
            raise InputError(f"{path}:{line}: a row needs a source and a target")
        try:
            weight = float(row.get("weight") or 1.0)
        except ValueError:
            raise InputError(f"{path}:{line}: weight {row['weight']!r} is not a number") from None
        if not 0 <= weight < float("inf"):
            raise InputError(f"{path}:{line}: weight {weight} is not a finite number above zero")
        if bool(row.get("source2")) != (manifest.seconds is not None) and len(manifest.sources.items):
            raise InputError(f"{path}:{line}: some rows have a source2 and some have none")
        label = row.get("label")
        number = -1 if label in (None, "") else numbers.setdefault(str(label), len(numbers))
        for side, name in ((manifest.sources, row["source"]), (manifest.targets, row["target"])):
            place = str(path.parent / name)
            side.add(row.get("split") or held_out(str(row["source"])), number, weight, place, place)
        if row.get("source2"):
            manifest.seconds, place = manifest.seconds or Side(), str(path.parent / row["source2"])
            manifest.seconds.add(row.get("split") or held_out(str(row["source"])), number, weight, place, place)
    if not len(manifest.sources.items):
        raise InputError(f"{path}: no rows")
    if numbers and -1 in manifest.sources.labels:
        raise InputError(f"{path}: some rows have a label and some have none", hint="give all of them one, or none")
    manifest.label_names = list(numbers)
    return manifest


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf8", newline="") as file:
            if path.suffix == ".csv":
                yield from enumerate(csv.DictReader(file), 2)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except json.JSONDecodeError as error:
                        raise InputError(f"{path}:{number}: not JSON: {error.msg}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None


def samples(path: str) -> Iterator[tuple[str, dict[str, tuple[int, int]], dict[str, Any]]]:
    """The samples of a local tar in order: key, (offset, size) by suffix, and the metadata of its .json. Raises InputError."""
    key, places, meta = None, {}, {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                head, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                own = f"{head}/{stem}" if head else stem
                if own != key:
                    if key is not None:
                        yield key, places, meta
                    key, places, meta = own, {}, {}
                if suffix.lower() == "json":
                    meta = json.loads(tar.extractfile(member).read())
                else:
                    places[suffix.lower()] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise InputError(f"{path}: the shard can't be read: {error}") from None
    if key is not None:
        yield key, places, meta


def _place(places: dict[str, tuple[int, int]], modality: str) -> tuple[int, int] | None:
    return next((places[suffix] for suffix in SUFFIXES[modality] if suffix in places), None)


def _from_shards(paths: Sequence[str], pairing: Pairing, name: str) -> Manifest:
    """Shards in which a sample holds both sides."""
    manifest, numbers = Manifest(Side(), Side(), direct=True, key="label"), {}
    for path in paths:
        for key, places, meta in samples(path):
            both = [_place(places, kind.modality) for kind in (pairing.source, pairing.target)]
            if None in both:
                continue
            label = meta.get("label")
            number = -1 if label is None else numbers.setdefault(str(label), len(numbers))
            for side, place in zip((manifest.sources, manifest.targets), both, strict=True):
                side.add(meta.get("split") or held_out(key), number, float(meta.get("weight", 1.0)), key, path, *place)
    if not len(manifest.sources.items):
        raise InputError(f"{name}: no sample holds both a {pairing.source.modality} and a {pairing.target.modality}")
    manifest.label_names = list(numbers) if -1 not in manifest.sources.labels else []
    return manifest


def _from_two_kinds_of_shards(folder: Path, pairing: Pairing) -> Manifest:
    """Shards of sources and shards of targets, paired by the first key of the metadata that both carry."""
    found = []
    for kind in (pairing.source, pairing.target):
        paths = sorted(map(str, folder.glob(f"{kind.prefix}-*.tar")))
        if not paths:
            raise InputError(f"{folder}: no {kind.prefix}-*.tar shards here")
        found.append([(path, *sample) for path in paths for sample in samples(path)])
    values = {
        key: [{str(row[3][key]) for row in rows if row[3].get(key) is not None} for rows in found]
        for key in pairing.keys
    }
    key = next((key for key in pairing.keys if values[key][0] & values[key][1]), None)
    if key is None:
        raise InputError(
            f"{folder}: no {pairing.source.prefix} and {pairing.target.prefix} share a {' or a '.join(f'`{k}`' for k in pairing.keys)}"
        )
    names = sorted(values[key][0] & values[key][1])
    manifest = Manifest(Side(), Side(), direct=False, label_names=names, key=key)
    for side, rows, kind in zip(
        (manifest.sources, manifest.targets), found, (pairing.source, pairing.target), strict=True
    ):
        for path, own, places, meta in rows:
            place = _place(places, kind.modality)
            if place is not None and str(meta.get(key)) in names:
                side.add(meta.get("split", "train"), names.index(str(meta[key])), 1.0, own, path, *place)
    return manifest


def fetch(pattern: str) -> list[str]:
    """A path, glob or URL of shards, with {000..009} spelled out → local files; remote ones are copied into the cache once.

    Raises InputError, NetworkError.
    """
    import fsspec
    from braceexpand import braceexpand

    found = []
    for url in braceexpand(pattern):
        try:
            if "://" in url:
                found.append(
                    fsspec.open_local(
                        f"simplecache::{url}", simplecache={"cache_storage": str(cache_root() / "shards")}
                    )
                )
            else:
                found += sorted(fsspec.open_local(url)) if "*" in url else [url]
        except (OSError, ValueError, ImportError) as error:
            raise NetworkError(f"{url}: can't be fetched: {error}") from None
    if not found:
        raise InputError(f"{pattern}: no such shards")
    return found
