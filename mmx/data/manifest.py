"""What belongs together: folders with equal stems, JSONL and CSV manifests, and WebDataset shards → two sides of items
with labels.

Nothing is read here but names, metadata and the heads of tars; what is kept is a few dozen bytes an item.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmx.data.items import SURROGATES, Item, Listing
from mmx.data.rows import Rows
from mmx.data.shards import fetch, located, urls
from mmx.errors import InputError
from mmx.media import formats
from mmx.media.names import walk
from mmx.tasks import Task
from mmx.tasks import task as find_task

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
    odd: list[str] = field(default_factory=list)  # what is unusual about how it is written

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
    task, path = find_task(task_name), Path(data)
    if "://" in data or data.endswith(".tar"):
        shards = urls(data)
        if stream and any("://" in url for url in shards):
            return Manifest(Listing(), Listing(), direct=True, remote=shards, task=task)
        return joined(_candidates(map(fetch, shards), task), task, data)
    if os.path.exists(path) and not path.is_dir():
        return _from_rows(path)
    if folders := folders_of(path, task):
        return _from_folders(folders)
    sides = (task.source, task.target)
    if any(list(path.glob(f"{side.prefix}-*.tar")) for side in sides):
        return _from_two_kinds_of_shards(path, task)
    found = sorted(map(str, path.glob("[!.]*.tar")))  # no hidden ones, such as the ._x.tar of macOS
    if not found:
        wanted = " and ".join(f"{side.folders[0]}/" for side in sides)
        tars = " and ".join(f"{side.prefix}-*.tar" for side in sides)
        hint = f"give {wanted}, or {tars}, or a .jsonl or .csv manifest"
        raise InputError(f"{data}: no training data here", hint=hint)
    return joined(_candidates(found, task), task, data)


def held_out(name: str) -> str:
    """The split of a pair that names none: by its name, so that it is the same in every run."""
    digest = hashlib.sha256(name.encode("utf8", SURROGATES)).hexdigest()
    return "val" if int(digest, 16) % HELD_OUT == 0 else "train"


def stems(folder: Path, modality: str) -> dict[str, list[Path]]:
    """The files of a modality below a folder, by their names without suffixes: of each the best kind first, the others
    are left out of training.
    """
    order = formats.SUFFIXES[modality]
    found: dict[str, list[Path]] = {}
    for path in sorted(walk(folder, order), key=lambda path: (order.index(path.suffix.lower()), path)):
        # macOS writes letters and their accents apart
        stem = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        found.setdefault(stem, []).append(path)
    return found


def folders_of(data: Path, task: Task) -> list[tuple[Path, str]]:
    """The two folders of pairs by stem, and that of second sources where there is one, with what they hold; none where
    one is missing.
    """
    sides = (task.source, task.target)
    found = [next((data / name for name in side.folders if (data / name).is_dir()), None) for side in sides]
    if None in found:
        return []
    kinds = [(folder, side.modality) for folder, side in zip(found, sides, strict=True)]
    return [*kinds, (data / HINTS, "image")] if (data / HINTS).is_dir() else kinds


def _from_folders(folders: list[tuple[Path, str]]) -> Manifest:
    by_stem = [stems(folder, modality) for folder, modality in folders]
    manifest = Manifest(Listing(), Listing(), direct=True, second_sources=Listing() if len(folders) > 2 else None)
    sides = [manifest.sources, manifest.targets, manifest.second_sources]
    for stem in sorted(set.intersection(*(set(paths) for paths in by_stem))):
        for side, paths in zip(sides, by_stem, strict=False):
            place = str(paths[stem][0])
            side.add(held_out(stem), -1, 1.0, Item(place, place))
    if not len(manifest.sources.items):
        (sources, _), (targets, _) = folders[:2]
        raise InputError(f"{sources.parent}: no file in {sources.name}/ has the stem of a file in {targets.name}/")
    return manifest


def _from_rows(path: Path) -> Manifest:
    """Rows of source, target and optionally source2, split, weight, label; paths are relative to the manifest's folder,
    or to the current one where it comes from a pipe.
    """
    manifest, numbers, rows = Manifest(Listing(), Listing(), direct=True, key="label"), {}, Rows(path)
    for where, row in rows:
        weight = _weight(row, where)
        if ("source2" in row) != (manifest.second_sources is not None) and len(manifest.sources.items):
            raise InputError(f"{where}: some rows have a source2 and some have none")
        label = row.get("label")
        number = -1 if label is None else numbers.setdefault(str(label), len(numbers))
        split = row.get("split") or held_out(row["name"])
        if "source2" in row:
            manifest.second_sources = manifest.second_sources or Listing()
        sides = ((manifest.sources, "source"), (manifest.targets, "target"), (manifest.second_sources, "source2"))
        for side, column in sides:
            if side is not None:
                side.add(split, number, weight, Item(row[column], row[column]))
    if not len(manifest.sources.items):
        raise InputError(f"{path}: no rows")
    if numbers and -1 in manifest.sources.labels:
        raise InputError(f"{path}: some rows have a label and some have none", hint="give all of them one, or none")
    manifest.label_names = list(numbers)
    manifest.odd = rows.odd
    return manifest


def _weight(row: dict[str, Any], where: str) -> float:
    """How often a pair is drawn beside the others: 1 where nothing is said, 0 for never."""
    given = row.get("weight")
    try:
        weight = 1.0 if given in (None, "") else float(given.replace(",", ".") if isinstance(given, str) else given)
    except (TypeError, ValueError):
        raise InputError(f"{where}: weight {given!r} is not a number") from None
    if not 0 <= weight < float("inf"):
        raise InputError(f"{where}: weight {weight} is not a finite number, zero or above")
    return weight


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
