"""`mmx data check`: everything that is wrong with training data, found before an hour of training is lost."""

from __future__ import annotations

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mmx.data.cache import content_key
from mmx.data.items import Item, Listing
from mmx.data.manifest import Manifest, folders_of, read_manifest, stems
from mmx.data.shards import hidden_members
from mmx.errors import DamagedError, InputError, SilenceError
from mmx.media.arrays import read_array
from mmx.media.audio import read_audio
from mmx.media.findings import KINDS
from mmx.media.formats import SAMPLE_RATE, SUFFIXES
from mmx.media.image import read_image
from mmx.media.names import walk
from mmx.media.notes import notes_of
from mmx.media.sound_headers import length_lies
from mmx.media.texts import text_of
from mmx.media.voice_activity import speech_part
from mmx.tasks import Side, Task
from mmx.tasks import task as find_task

SHORT = 0.5  # seconds: less of a sound says little
PROBLEMS = {
    "unreadable": "can't be read or is of no known kind; training skips it",
    "silent": "digital silence, or a voice recording in which nobody speaks; training skips it",
    "broken": "a picture that is damaged or cut short; training skips it",
    **KINDS,
    "lying": "a sound whose header gives another length than it has; its samples are counted",
    "short": f"shorter than {SHORT} s; it is repeated to fill the window",
    "duplicate": "the same bytes as another item of its side",
    "leaking": "the same source bytes in train and in another split: val would be flattered",
    "mismatched": "has no partner: no file of its stem, or no item of its label, on the other side",
    "ambiguous": "a file of the same stem and another kind is taken in its place",
    "hidden": "a hidden file, such as the ._NAME that macOS puts beside NAME; training leaves it out",
    "odd": "what is unusual about a manifest or its splits, and what is made of it",
}
SKIPPED = ("unreadable", "silent", "broken")


@dataclass
class Findings:
    """What is wrong: for each problem the names. counts: items a side and split."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=lambda: {problem: [] for problem in PROBLEMS})

    @property
    def unusable(self) -> int:
        """How many items training would skip."""
        return sum(len(self.names[problem]) for problem in SKIPPED)


@dataclass
class Judged:
    """An item, what its bytes are known by, and what is wrong with it: problems with what is said of each."""

    item: Item
    key: int | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)


def check(data: str, task: str, workers: int = 4) -> Findings:
    """Read every item once. Raises InputError where there is no data at all."""
    row, manifest, found = find_task(task), read_manifest(data, task), Findings()
    for name, listing, side in (("source", manifest.sources, row.source), ("target", manifest.targets, row.target)):
        found.counts |= {f"{name}s, {split}": count for split, count in listing.counts().items()}
        _read_side(listing, side, found, workers, is_source=name == "source")
    splits = dict.fromkeys(line for side in (manifest.sources, manifest.targets) for line in side.odd_splits())
    found.names["odd"] += [*manifest.odd, *splits]
    _mismatched(manifest, found)
    _left_out(Path(data), row, manifest, found)
    return found


def _read_side(listing: Listing, side: Side, found: Findings, workers: int, *, is_source: bool) -> None:
    seen: dict[int, tuple[str, int]] = {}
    with ThreadPoolExecutor(workers) as pool:
        judged = _in_order(pool, lambda item: _judge(item, side), listing.items)
        for one, split in zip(judged, listing.splits, strict=True):
            name = one.item.name
            for problem, said in one.problems:
                found.names[problem].append(f"{name}: {said}" if said else name)
            if one.key is None:
                continue
            if one.key in seen and seen[one.key][0] != name:
                problem = "leaking" if is_source and seen[one.key][1] != split else "duplicate"
                found.names[problem].append(f"{name} = {seen[one.key][0]}")
            seen.setdefault(one.key, (name, split))


def _in_order(pool: ThreadPoolExecutor, work, items: Iterable[Item], ahead: int = 64):
    """`pool.map` that never holds more than `ahead` results."""
    rest = iter(items)
    waiting = [pool.submit(work, item) for item in islice(rest, ahead)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(work, item) for item in islice(rest, 1)]


def _judge(item: Item, side: Side) -> Judged:
    """Read an item as training would."""
    judged = Judged(item)
    try:
        data = item.read()
        judged.key = content_key(data)
        judged.problems += JUDGES[side.modality](data, item.name, side)
    except SilenceError:
        judged.problems.append(("silent", ""))
    except DamagedError:
        judged.problems.append(("broken", ""))
    except InputError:
        judged.problems.append(("unreadable", ""))
    return judged


def _of_picture(data: bytes, name: str, _: Side) -> list[tuple[str, str]]:
    return [(note.kind, note) for note in notes_of(read_image(data, name=name))]


def _of_sound(data: bytes, name: str, side: Side) -> list[tuple[str, str]]:
    wave = read_audio(data, sample_rate=SAMPLE_RATE, name=name)
    if side.prefix == "voices":
        try:
            speech_part(wave, limit=3.0, name=name)
        except InputError:
            return [("silent", "")]
    found = [(note.kind, str(note)) for note in wave.notes]
    if "cut" not in dict(found) and length_lies(io.BytesIO(data)):
        found.append(("lying", ""))
    return [*found, ("short", "")] if wave.seconds < SHORT else found


def _of_array(data: bytes, name: str, _: Side) -> list[tuple[str, str]]:
    read_array(data, name)
    return []


def _of_text(data: bytes, name: str, _: Side) -> list[tuple[str, str]]:
    text_of(data, name)
    return []


JUDGES = {"image": _of_picture, "sound": _of_sound, "array": _of_array, "text": _of_text}


def _mismatched(manifest: Manifest, found: Findings) -> None:
    """The labels that one side lacks."""
    if not manifest.direct:
        both = [set(listing.labels) for listing in (manifest.sources, manifest.targets)]
        lonely = (both[0] ^ both[1]) - {-1}
        found.names["mismatched"] += [f"label {manifest.label_names[number]}" for number in sorted(lonely)]


def _left_out(data: Path, row: Task, manifest: Manifest, found: Findings) -> None:
    """Files that nothing is made of: in folders of pairs those without a partner, those with a better one of the same
    stem, and hidden ones; in shards these.
    """
    folders = folders_of(data, row)
    by_stem = [(folder, stems(folder, modality)) for folder, modality in folders]
    shared = set.intersection(*(set(paths) for _, paths in by_stem)) if by_stem else set()
    for folder, paths in by_stem:
        for stem, files in paths.items():
            names = [f"{folder.name}/{file.relative_to(folder)}" for file in files]
            found.names["mismatched"] += [] if stem in shared else names[:1]
            found.names["ambiguous"] += [f"{name}: {names[0]} is taken" for name in names[1:]]
    for folder, modality in folders:
        found.names["hidden"] += map(str, walk(folder, SUFFIXES[modality], hidden=True))
    items = (item for side in (manifest.sources, manifest.targets) for item in side.items)
    for tar in dict.fromkeys(item.path for item in items if item.size >= 0):
        found.names["hidden"] += [f"{tar}: {name}" for name in hidden_members(tar)]
