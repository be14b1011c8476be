"""`mmx data check`: everything that is wrong with training data, found before an hour of training is lost."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mmx.data.cache import content_key
from mmx.data.items import SPLITS, Item, Listing
from mmx.data.manifest import Manifest, read_manifest
from mmx.data.shards import SUFFIXES
from mmx.errors import InputError, SilenceError
from mmx.media.audio import read_audio
from mmx.media.formats import SAMPLE_RATE
from mmx.media.image import read_image
from mmx.media.notes import notes_of
from mmx.media.voice_activity import speech_part
from mmx.tasks import TASKS, Side, Task

SHORT = 0.5  # seconds: less of a sound says little
PROBLEMS = {
    "unreadable": "can't be decoded; training skips it",
    "silent": "digital silence, or a voice recording in which nobody speaks; training skips it",
    "noted": "used as it is: cut short, damaged, of narrow band, of an unusual range",
    "short": f"shorter than {SHORT} s; it is repeated to fill the window",
    "duplicate": "the same bytes as another item of its side",
    "leaking": "the same source bytes in train and in another split: val would be flattered",
    "mismatched": "has no partner: no file of its stem, or no item of its label, on the other side",
}


@dataclass
class Findings:
    """What is wrong: for each problem the names. counts: items a side and split."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=lambda: {problem: [] for problem in PROBLEMS})

    @property
    def unusable(self) -> int:
        """How many items training would skip."""
        return len(self.names["unreadable"]) + len(self.names["silent"])


def check(data: str, task: str, workers: int = 4) -> Findings:
    """Read every item once. Raises InputError where there is no data at all."""
    row, manifest, found = TASKS[task], read_manifest(data, task), Findings()
    for name, listing, side in (("source", manifest.sources, row.source), ("target", manifest.targets, row.target)):
        for number, split in enumerate((*SPLITS, "other")):
            count = listing.splits.count(number)
            if count:
                found.counts[f"{name}s, {split}"] = count
        _read_side(listing, side, found, workers, is_source=name == "source")
    _mismatched(data, row, manifest, found)
    return found


def _read_side(listing: Listing, side: Side, found: Findings, workers: int, *, is_source: bool) -> None:
    seen: dict[int, tuple[str, int]] = {}
    with ThreadPoolExecutor(workers) as pool:
        judged = _in_order(pool, lambda item: _judge(item, side), listing.items)
        for (item, key, problem, notes), split in zip(judged, listing.splits, strict=True):
            if problem:
                found.names[problem].append(item.name)
            found.names["noted"] += [f"{item.name}: {note}" for note in notes]
            if key is None:
                continue
            if key in seen and seen[key][0] != item.name:
                if is_source and seen[key][1] != split:
                    found.names["leaking"].append(f"{item.name} = {seen[key][0]}")
                else:
                    found.names["duplicate"].append(f"{item.name} = {seen[key][0]}")
            seen.setdefault(key, (item.name, split))


def _in_order(pool: ThreadPoolExecutor, work, items: Iterable[Item], ahead: int = 64):
    """`pool.map` that never holds more than `ahead` results."""
    rest = iter(items)
    waiting = [pool.submit(work, item) for item in islice(rest, ahead)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(work, item) for item in islice(rest, 1)]


def _judge(item: Item, side: Side) -> tuple[Item, int | None, str | None, tuple[str, ...]]:
    """An item, what its bytes are known by, its problem and what reading it found."""
    try:
        data = item.read()
    except InputError:
        return item, None, "unreadable", ()
    key = content_key(data)
    try:
        if side.modality == "image":
            return item, key, None, notes_of(read_image(io.BytesIO(data), name=item.name))
        wave = read_audio(data, sample_rate=SAMPLE_RATE, name=item.name)
    except SilenceError:
        return item, key, "silent", ()
    except InputError:
        return item, key, "unreadable", ()
    if side.prefix == "voices":
        try:
            speech_part(wave, limit=3.0, name=item.name)
        except InputError:
            return item, key, "silent", ()
    return item, key, "short" if wave.seconds < SHORT else None, wave.notes


def _mismatched(data: str, row: Task, manifest: Manifest, found: Findings) -> None:
    path = Path(data)
    if not manifest.direct:
        both = [set(listing.labels) for listing in (manifest.sources, manifest.targets)]
        lonely = (both[0] ^ both[1]) - {-1}
        found.names["mismatched"] += [f"label {manifest.label_names[number]}" for number in sorted(lonely)]
        return
    if not path.is_dir():
        return
    stems = defaultdict(set)
    for side in (row.source, row.target):
        folder = next((path / f for f in side.folders if (path / f).is_dir()), None)
        if folder is not None:
            for file in folder.rglob("*"):
                if file.suffix[1:].lower() in SUFFIXES[side.modality]:
                    stems[file.relative_to(folder).with_suffix("").as_posix()].add(
                        f"{folder.name}/{file.relative_to(folder)}"
                    )
    found.names["mismatched"] += [next(iter(files)) for stem, files in sorted(stems.items()) if len(files) == 1]
