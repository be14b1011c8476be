"""What belongs together: folders with equal stems, JSONL and CSV manifests, and WebDataset shards → two sides of items
with labels.

Nothing is read here but names, metadata and the heads of tars; what is kept is a few dozen bytes an item.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmx.data.items import Item, Listing
from mmx.data.shards import SUFFIXES, fetch, located, urls
from mmx.errors import InputError
from mmx.tasks import TASKS, Task

HINTS = "hints"  # the folder of pictures that a bridge with two sources sees beside each sound
HELD_OUT = 20  # one of so many pairs that name no split is held out


@dataclass(frozen=True)
class Candidate:
    """A sample of shards that may become a pair: its source and its target, of which it may hold one only, and its
    metadata.
    """

    key: str
    sides: tuple[Item | None, Item | None]
    meta: dict[str, Any]


@dataclass
class Manifest:
    """Sources and targets. direct: equal positions belong together; otherwise equal labels do.

    Of shards that are to be streamed there are the URLs at first, and nothing else.
    """

    sources: Listing
    targets: Listing
    direct: bool
    second_sources: Listing | None = None  # of direct pairs: pictures to take the sources with, where there are any
    label_names: list[str] = field(default_factory=list)
    key: str = ""  # of the metadata that the labels come from
    remote: list[str] = field(default_factory=list)  # shards to be streamed
    task: Task | None = None  # of these

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """The label numbers of both sides; direct pairs without labels are each their own."""
        both = tuple(np.frombuffer(side.labels, np.int32).astype(np.int64) for side in (self.sources, self.targets))
        if self.direct and not self.label_names:
            own = np.arange(len(both[0]))
            return own, own
        return both


def read_manifest(data: str, task_name: str, *, stream: bool = False) -> Manifest:
    """A folder, a .jsonl or .csv file, or a URL of shards → what belongs together. Remote shards are copied into the
    cache, or with `stream` left where they are, to be read by `load_pairs`. Raises InputError, NetworkError."""
    task, path = TASKS[task_name], Path(data)
    if "://" in data or data.endswith(".tar"):
        shards = urls(data)
        if stream and any("://" in url for url in shards):
            return Manifest(Listing(), Listing(), direct=True, remote=shards, task=task)
        return joined(_candidates(map(fetch, shards), task), task, data)
    if path.suffix in (".jsonl", ".csv"):
        return _from_rows(path)
    sides = (task.source, task.target)
    folders = [next((path / name for name in side.folders if (path / name).is_dir()), None) for side in sides]
    if all(folders):
        return _from_folders(*folders, task)
    if any(list(path.glob(f"{side.prefix}-*.tar")) for side in sides):
        return _from_two_kinds_of_shards(path, task)
    found = sorted(map(str, path.glob("*.tar")))
    if not found:
        wanted = " and ".join(f"{side.folders[0]}/" for side in sides)
        tars = " and ".join(f"{side.prefix}-*.tar" for side in sides)
        hint = f"give {wanted}, or {tars}, or a .jsonl or .csv manifest"
        raise InputError(f"{data}: no training data here", hint=hint)
    return joined(_candidates(found, task), task, data)


def held_out(name: str) -> str:
    """The split of a pair that names none: by its name, so that it is the same in every run."""
    return "val" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0 else "train"


def _from_folders(sources: Path, targets: Path, task: Task) -> Manifest:
    by_stem = []
    kinds = [(sources, task.source.modality), (targets, task.target.modality)]
    if (sources.parent / HINTS).is_dir():
        kinds.append((sources.parent / HINTS, "image"))
    for folder, modality in kinds:
        files = (p for p in folder.rglob("*") if p.suffix[1:].lower() in SUFFIXES[modality])
        by_stem.append({p.relative_to(folder).with_suffix("").as_posix(): str(p) for p in files})
    manifest = Manifest(Listing(), Listing(), direct=True, second_sources=Listing() if len(kinds) > 2 else None)
    sides = [manifest.sources, manifest.targets, manifest.second_sources]
    for stem in sorted(set.intersection(*(set(paths) for paths in by_stem))):
        for side, paths in zip(sides, by_stem, strict=False):
            side.add(held_out(stem), -1, 1.0, Item(paths[stem], paths[stem]))
    if not len(manifest.sources.items):
        raise InputError(f"{sources.parent}: no file in {sources.name}/ has the stem of a file in {targets.name}/")
    return manifest


def _from_rows(path: Path) -> Manifest:
    """Rows of source, target and optionally source2, split, weight, label; paths are relative to the
    manifest's folder.
    """
    manifest, numbers = Manifest(Listing(), Listing(), direct=True, key="label"), {}
    for line, row in _rows(path):
        if not isinstance(row, dict) or not row.get("source") or not row.get("target"):
            raise InputError(f"{path}:{line}: a row needs a source and a target")
        weight = _weight(row, f"{path}:{line}")
        if bool(row.get("source2")) != (manifest.second_sources is not None) and len(manifest.sources.items):
            raise InputError(f"{path}:{line}: some rows have a source2 and some have none")
        label = row.get("label")
        number = -1 if label in (None, "") else numbers.setdefault(str(label), len(numbers))
        for side, name in ((manifest.sources, row["source"]), (manifest.targets, row["target"])):
            place = str(path.parent / name)
            side.add(row.get("split") or held_out(str(row["source"])), number, weight, Item(place, place))
        if row.get("source2"):
            manifest.second_sources, place = manifest.second_sources or Listing(), str(path.parent / row["source2"])
            manifest.second_sources.add(
                row.get("split") or held_out(str(row["source"])), number, weight, Item(place, place)
            )
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


def joined(rows: Iterator[Candidate], task: Task, name: str) -> Manifest:
    """Samples → manifest: each a pair of its own where some hold both sides, else paired by a key of their metadata."""
    lonely = []
    for row in rows:
        if None not in row.sides:
            return _pairs(chain((row,), rows))
        lonely.append(row)
    if not lonely:
        raise InputError(f"{name}: no sample holds a {task.source.modality} or a {task.target.modality}")
    return _by_key(lonely, task, name)


def _pairs(rows: Iterable[Candidate]) -> Manifest:
    """The samples that hold both sides."""
    manifest, numbers = Manifest(Listing(), Listing(), direct=True, key="label"), {}
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


def _by_key(rows: list[Candidate], task: Task, name: str) -> Manifest:
    """Sources and targets apart, paired by the first key of the metadata that both carry."""
    found = [[row for row in rows if row.sides[side] is not None] for side in (0, 1)]
    for some, kind in zip(found, (task.source, task.target), strict=True):
        if not some:
            raise InputError(f"{name}: no {kind.prefix}-*.tar shards here")
    values = {
        key: [{str(row.meta[key]) for row in some if row.meta.get(key) is not None} for some in found]
        for key in task.keys
    }
    key = next((key for key in task.keys if values[key][0] & values[key][1]), None)
    if key is None:
        raise InputError(
            f"{name}: no {task.source.prefix} and {task.target.prefix} share a "
            + " or a ".join(f"`{key}`" for key in task.keys)
        )
    names = sorted(values[key][0] & values[key][1])
    numbers = {name: number for number, name in enumerate(names)}
    manifest = Manifest(Listing(), Listing(), direct=False, label_names=names, key=key)
    for which, side in enumerate((manifest.sources, manifest.targets)):
        for row in found[which]:
            label = numbers.get(str(row.meta.get(key)))
            if label is not None:
                side.add(row.meta.get("split", "train"), label, 1.0, row.sides[which])
    return manifest


def _candidates(paths: Iterable[str], task: Task, sides: tuple[int, ...] = (0, 1)) -> Iterator[Candidate]:
    """The samples of local shards that hold one of `sides`."""
    for path in paths:
        for sample in located(path):
            both = [
                sample.of(kind.modality) if side in sides else None
                for side, kind in enumerate((task.source, task.target))
            ]
            if both != [None, None]:
                yield Candidate(sample.key, (both[0], both[1]), sample.meta)


def _from_two_kinds_of_shards(folder: Path, task: Task) -> Manifest:
    """Shards of sources and shards of targets."""
    kinds = enumerate((task.source, task.target))
    shards = [(side, sorted(map(str, folder.glob(f"{kind.prefix}-*.tar")))) for side, kind in kinds]
    return _by_key([row for side, paths in shards for row in _candidates(paths, task, (side,))], task, str(folder))
