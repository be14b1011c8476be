"""What belongs together: folders with equal stems, JSONL and CSV manifests, and WebDataset shards → two sides of items with labels.

Nothing is read here but names, metadata and the heads of tars; what is kept is a few dozen bytes an item.
"""

from __future__ import annotations

import csv
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmx.data.shards import Item, fetch, samples, urls
from mmx.errors import InputError
from mmx.tasks import TASKS, Task

T = TypeVar("T")
SUFFIXES = {
    "sound": ("ogg", "wav", "flac", "mp3", "m4a", "aac", "opus"),
    "image": ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"),
}
SPLITS = ("train", "val")  # any other name is a split that training never touches
SECONDS = "hints"  # the folder of pictures that a bridge with two sources sees beside each sound
HELD_OUT = 20  # one of so many pairs that name no split is held out


class Items(Sequence[Item]):
    """Items in a few dozen bytes each: names and paths in one string of bytes, places in arrays."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        self._paths: dict[str, int] = {}
        self._path_of, self._offset, self._size = array("i"), array("q"), array("q")
        self._keys = array("Q")

    def append(self, item: Item) -> None:
        """Add an item. Of a whole file the name is the path."""
        alone = item.size < 0 and not item.key
        self._text += (item.path if alone else item.name).encode()
        self._ends.append(len(self._text))
        self._path_of.append(-1 if alone else self._paths.setdefault(item.path, len(self._paths)))
        self._offset.append(item.offset)
        self._size.append(item.size)
        self._keys.append(item.key)

    def __len__(self) -> int:
        return len(self._size)

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        text = self._text[self._ends[index] : self._ends[index + 1]].decode()
        if self._path_of[index] < 0:
            return Item(text, text)
        if len(self._paths) != len(getattr(self, "_by_number", ())):
            self._by_number = list(self._paths)
        return Item(
            text, self._by_number[self._path_of[index]], self._offset[index], self._size[index], self._keys[index]
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))


@dataclass
class Side:
    """One side of the pairs: items, the number of each one's label (-1: none), of its split (index into SPLITS, 2: other), its weight."""

    items: Items = field(default_factory=Items)
    labels: array = field(default_factory=lambda: array("i"))
    splits: array = field(default_factory=lambda: array("b"))
    weights: array = field(default_factory=lambda: array("f"))

    def add(self, split: str, label: int, weight: float, item: Item) -> None:
        """Add an item and what is known of it."""
        self.items.append(item)
        self.labels.append(label)
        self.splits.append(SPLITS.index(split) if split in SPLITS else len(SPLITS))
        self.weights.append(weight)


@dataclass(frozen=True)
class Row:
    """A sample of shards: its source and its target, of which it may hold one only, and its metadata."""

    key: str
    sides: tuple[Item | None, Item | None]
    meta: dict[str, Any]


@dataclass
class Manifest:
    """Sources and targets. direct: equal positions belong together; otherwise equal labels do.

    Of shards that are to be streamed there are the URLs at first, and nothing else.
    """

    sources: Side
    targets: Side
    direct: bool
    seconds: Side | None = None  # of direct pairs: pictures to take the sources with, where there are any
    label_names: list[str] = field(default_factory=list)
    key: str = ""  # of the metadata that the labels come from
    remote: list[str] = field(default_factory=list)  # shards to be streamed
    pairing: Task | None = None  # of these

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """The label numbers of both sides; direct pairs without labels are each their own."""
        both = tuple(np.frombuffer(side.labels, np.int32).astype(np.int64) for side in (self.sources, self.targets))
        if self.direct and not self.label_names:
            own = np.arange(len(both[0]))
            return own, own
        return both


def read_manifest(data: str, task: str, *, stream: bool = False) -> Manifest:
    """A folder, a .jsonl or .csv file, or a URL of shards → what belongs together. Remote shards are copied into the cache, or
    with `stream` left where they are, to be read by `load_pairs`. Raises InputError, NetworkError."""
    pairing = TASKS[task]
    path = Path(data)
    if "://" in data or data.endswith(".tar"):
        shards = urls(data)
        if stream and any("://" in url for url in shards):
            return Manifest(Side(), Side(), direct=True, remote=shards, pairing=pairing)
        return joined(_rows_of(map(fetch, shards), pairing), pairing, data)
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
    return joined(_rows_of(found, pairing), pairing, data)


def held_out(name: str) -> str:
    """The split of a pair that names none: by its name, so that it is the same in every run."""
    return "val" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0 else "train"


def _from_folders(sources: Path, targets: Path, pairing: Task) -> Manifest:
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
            side.add(held_out(stem), -1, 1.0, Item(paths[stem], paths[stem]))
    if not len(manifest.sources.items):
        raise InputError(f"{sources.parent}: no file in {sources.name}/ has the stem of a file in {targets.name}/")
    return manifest


def _from_rows(path: Path) -> Manifest:
    """Rows of source, target and optionally source2, split, weight, label; paths are relative to the manifest's folder."""
    manifest, numbers = Manifest(Side(), Side(), direct=True, key="label"), {}
    for line, row in _rows(path):
        if not isinstance(row, dict) or not row.get("source") or not row.get("target"):
            raise InputError(f"{path}:{line}: a row needs a source and a target")
        weight = _weight(row, f"{path}:{line}")
        if bool(row.get("source2")) != (manifest.seconds is not None) and len(manifest.sources.items):
            raise InputError(f"{path}:{line}: some rows have a source2 and some have none")
        label = row.get("label")
        number = -1 if label in (None, "") else numbers.setdefault(str(label), len(numbers))
        for side, name in ((manifest.sources, row["source"]), (manifest.targets, row["target"])):
            place = str(path.parent / name)
            side.add(row.get("split") or held_out(str(row["source"])), number, weight, Item(place, place))
        if row.get("source2"):
            manifest.seconds, place = manifest.seconds or Side(), str(path.parent / row["source2"])
            manifest.seconds.add(row.get("split") or held_out(str(row["source"])), number, weight, Item(place, place))
    if not len(manifest.sources.items):
        raise InputError(f"{path}: no rows")
    if numbers and -1 in manifest.sources.labels:
        raise InputError(f"{path}: some rows have a label and some have none", hint="give all of them one, or none")
    manifest.label_names = list(numbers)
    return manifest


def _weight(row: dict[str, Any], where: str) -> float:
    """How often a pair is drawn beside the others: 1 where nothing is said, 0 for never."""
    given = row.get("weight")
    try:
        weight = 1.0 if given in (None, "") else float(given)
    except (TypeError, ValueError):
        raise InputError(f"{where}: weight {given!r} is not a number") from None
    if not 0 <= weight < float("inf"):
        raise InputError(f"{where}: weight {weight} is not a finite number, zero or above")
    return weight


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


def placed(members: dict[str, T], modality: str) -> T | None:
    """Of a sample's members by suffix the one of this modality."""
    return next((members[suffix] for suffix in SUFFIXES[modality] if suffix in members), None)


def joined(rows: Iterator[Row], pairing: Task, name: str) -> Manifest:
    """Samples → manifest: each a pair of its own where some hold both sides, else paired by a key of their metadata."""
    lonely = []
    for row in rows:
        if None not in row.sides:
            return _pairs(chain((row,), rows))
        lonely.append(row)
    if not lonely:
        raise InputError(f"{name}: no sample holds a {pairing.source.modality} or a {pairing.target.modality}")
    return _by_key(lonely, pairing, name)


def _pairs(rows: Iterable[Row]) -> Manifest:
    """The samples that hold both sides."""
    manifest, numbers = Manifest(Side(), Side(), direct=True, key="label"), {}
    for row in rows:
        if None in row.sides:
            continue
        label = row.meta.get("label")
        number = -1 if label is None else numbers.setdefault(str(label), len(numbers))
        weight = _weight(row.meta, row.key)
        for side, place in zip((manifest.sources, manifest.targets), row.sides, strict=True):
            side.add(row.meta.get("split") or held_out(row.key), number, weight, place)
    manifest.label_names = list(numbers) if -1 not in manifest.sources.labels else []
    return manifest


def _by_key(rows: list[Row], pairing: Task, name: str) -> Manifest:
    """Sources and targets apart, paired by the first key of the metadata that both carry."""
    found = [[row for row in rows if row.sides[side] is not None] for side in (0, 1)]
    for some, kind in zip(found, (pairing.source, pairing.target), strict=True):
        if not some:
            raise InputError(f"{name}: no {kind.prefix}-*.tar shards here")
    values = {
        key: [{str(row.meta[key]) for row in some if row.meta.get(key) is not None} for some in found]
        for key in pairing.keys
    }
    key = next((key for key in pairing.keys if values[key][0] & values[key][1]), None)
    if key is None:
        raise InputError(
            f"{name}: no {pairing.source.prefix} and {pairing.target.prefix} share a {' or a '.join(f'`{k}`' for k in pairing.keys)}"
        )
    names = sorted(values[key][0] & values[key][1])
    numbers = {name: number for number, name in enumerate(names)}
    manifest = Manifest(Side(), Side(), direct=False, label_names=names, key=key)
    for which, side in enumerate((manifest.sources, manifest.targets)):
        for row in found[which]:
            label = numbers.get(str(row.meta.get(key)))
            if label is not None:
                side.add(row.meta.get("split", "train"), label, 1.0, row.sides[which])
    return manifest


def _rows_of(paths: Iterable[str], pairing: Task, sides: tuple[int, ...] = (0, 1)) -> Iterator[Row]:
    """The samples of local shards that hold one of `sides`."""
    for path in paths:
        for key, places, meta in samples(path):
            both: list[Item | None] = [None, None]
            for side in sides:
                place = placed(places, (pairing.source, pairing.target)[side].modality)
                both[side] = place and Item(key, path, *place)
            if both != [None, None]:
                yield Row(key, (both[0], both[1]), meta)


def _from_two_kinds_of_shards(folder: Path, pairing: Task) -> Manifest:
    """Shards of sources and shards of targets."""
    kinds = enumerate((pairing.source, pairing.target))
    shards = [(side, sorted(map(str, folder.glob(f"{kind.prefix}-*.tar")))) for side, kind in kinds]
    return _by_key([row for side, paths in shards for row in _rows_of(paths, pairing, (side,))], pairing, str(folder))
