"""What is in folders of results: each artifact beside the inputs that it says it was made from, ready for a page."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mmx.digest import sha256
from mmx.errors import MmxError, UsageError
from mmx.media.audio import Waveform, read_audio, resample, wav_bytes
from mmx.media.files import kind_of_file
from mmx.media.formats import MAX_BYTES, SAMPLE_RATE, SUFFIXES
from mmx.media.image import read_image
from mmx.media.names import printable, walk
from mmx.media.provenance import read_record
from mmx.media.show import View, draw_sound

WHOLE = 2 << 20  # bytes: a file up to this size is shown as it is
SIDE = 640  # pixels, of a larger picture
HEARD = 30.0  # seconds, of a longer sound
DRAWN = View(width=320, bands=48)
# what browsers show and play as it is
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
TYPES |= {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac", ".m4a": "audio/mp4"}
TYPES |= {".mp4": "video/mp4", ".webm": "video/webm"}
OTHERS = (".obj", ".glb", ".ply", ".npy", ".safetensors")  # results that a page can only name
EVAL, CAPTION = "mmx.eval/1", "mmx.caption/1"


@dataclass(frozen=True)
class Shown:
    """A file as a page shows it. kind: image, sound, video, text or file; url and drawing (of a sound): data URLs."""

    name: str
    kind: str
    role: str = ""
    url: str = ""
    drawing: str = ""
    text: str = ""


@dataclass(frozen=True)
class Item:
    """A result, its inputs, and what it says of itself; `record` is empty where it says nothing."""

    output: Shown
    inputs: tuple[Shown, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """What is shown: results, and tables of measurements by the file that holds them."""

    items: list[Item]
    tables: dict[str, dict[str, dict[str, dict[str, float]]]]
    problems: list[str]


def gather(folders: Sequence[Path], beside: Sequence[Path] = ()) -> Gallery:
    """Every result in some folders. beside: where else inputs may lie; one that is not found is named.

    Raises UsageError where there is nothing to show. A file that can't be read is a problem of its own.
    """
    suffixes = {suffix for kind in ("image", "sound", "video") for suffix in SUFFIXES[kind]} | set(OTHERS)
    paths = [(folder, path) for folder in folders for path in walk(folder, suffixes)]
    made, others, problems = _told_apart(paths)
    own = (*(path for _, path in others), *(path for _, path, _ in made))  # a result may be another's input
    inputs = _Inputs([*own, *_files(beside)])
    items = [_item(name, path, record, inputs) for name, path, record in made]
    items += [
        item for folder in folders for path in walk(folder, {".jsonl"}) for item in _captions(path, folder, inputs)
    ]
    plain = [(folder, path) for folder, path in others if path not in inputs.used]
    for folder, path in plain:
        try:
            items.append(Item(shown(path.read_bytes(), path.relative_to(folder).as_posix())))
        except (MmxError, OSError) as error:
            problems.append(f"{path.name}: {getattr(error, 'message', error)}")
    tables = _tables(folders)
    if not items and not tables:
        raise UsageError(f"{', '.join(map(str, folders))}: nothing to show", hint="give a folder of results")
    return Gallery(items, tables, problems)


def _told_apart(
    paths: Iterable[tuple[Path, Path]],
) -> tuple[list[tuple[str, Path, dict[str, Any]]], list[tuple[Path, Path]], list[str]]:
    """Artifacts with their records, other files, and what can't be read."""
    made, others, problems = [], [], []
    for folder, path in paths:
        try:
            record = read_record(path.read_bytes(), path.name)
        except MmxError:
            others.append((folder, path))
        except OSError as error:
            problems.append(f"{path.name}: {error.strerror}")
        else:
            made.append((path.relative_to(folder).as_posix(), path, record))
    return made, others, problems


def _files(folders: Iterable[Path]) -> list[Path]:
    suffixes = {suffix for known in SUFFIXES.values() for suffix in known}
    return [
        entry
        for folder in folders
        for entry in sorted(folder.iterdir() if folder.is_dir() else [])
        if entry.suffix.lower() in suffixes and entry.is_file() and entry.stat().st_size < MAX_BYTES
    ]


class _Inputs:
    """Files that may be inputs, found by digest: those of the right name are read first."""

    def __init__(self, candidates: Sequence[Path]) -> None:
        self.by_name: dict[str, list[Path]] = {}
        for path in candidates:
            self.by_name.setdefault(printable(path.name), []).append(path)
        self.known: dict[Path, str] = {}
        self.shown: dict[str, Shown] = {}
        self.used: set[Path] = set()

    def find(self, entry: dict[str, Any]) -> Shown:
        """An input as the page shows it; one that is not there, or unreadable, by its name alone."""
        name, role = str(entry.get("name", "text")), str(entry.get("role", "source"))
        if "text" in entry:
            return Shown(name, "text", role, text=str(entry["text"]))
        digest = str(entry.get("sha256"))
        if digest not in self.shown:
            self.shown[digest] = self._read(name, digest)
        found = self.shown[digest]
        return Shown(name, found.kind, role, found.url, found.drawing)

    def _read(self, name: str, digest: str) -> Shown:
        for path in self.by_name.get(name, ()):
            try:
                if path not in self.known:
                    self.known[path] = sha256(path.read_bytes())
                if self.known[path] == digest:
                    self.used.add(path)
                    return shown(path.read_bytes(), name)
            except (MmxError, OSError):
                continue
        return Shown(name, "file")


def _captions(path: Path, folder: Path, inputs: _Inputs) -> Iterator[Item]:
    """What `mmx caption -o FILE.jsonl` wrote: the words beside what they say. Lines of anything else are left out."""
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                about = json.loads(line)
                if about["schema"] == CAPTION:
                    text = "\n".join(str(caption["text"]) for caption in about["captions"])
                    output = Shown(path.relative_to(folder).as_posix(), "text", text=text)
                    yield Item(output, tuple(map(inputs.find, about["inputs"])), {"command": "caption"} | about)


def _item(name: str, path: Path, record: dict[str, Any], inputs: _Inputs) -> Item:
    heard = [one for one in record.get("heard", []) if isinstance(one, list) and one]
    labels = dict.fromkeys(str(one[0][0]) for one in heard if isinstance(one[0], list | tuple) and one[0])
    try:
        output = shown(path.read_bytes(), name)
    except MmxError:
        output = Shown(name, "file")
    return Item(output, tuple(inputs.find(entry) for entry in record["inputs"]), record, tuple(labels))


def shown(data: bytes, name: str) -> Shown:
    """A file's bytes as a page shows them: as they are where small and known to browsers. Raises InputError."""
    suffix = os.path.splitext(name)[1].lower()
    kind, name = kind_of_file(Path(name)), printable(name)
    as_it_is = _url(data, TYPES[suffix]) if suffix in TYPES and len(data) <= WHOLE else ""
    if kind == "image":
        picture = read_image(data, name=name)
        return Shown(name, "image", url=as_it_is or _picture(picture))
    if kind == "sound":
        wave = read_audio(data, sample_rate=None, name=name)
        return Shown(name, "sound", url=as_it_is or _sound(wave), drawing=_picture(draw_sound(wave, DRAWN)))
    return Shown(name, "video" if kind == "video" and as_it_is else "file", url=as_it_is)


def _picture(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return _url(buffer.getvalue(), "image/jpeg")


def _sound(wave: Waveform) -> str:
    rate = min(wave.sample_rate, SAMPLE_RATE)
    samples = wave.samples[: int(HEARD * wave.sample_rate)]
    return _url(wav_bytes(Waveform(resample(samples, wave.sample_rate, rate), rate)), "audio/wav")


def _url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _tables(folders: Sequence[Path]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """What `mmx eval` measured: file → table → row → column → value."""
    found = {}
    for folder in folders:
        for path in walk(folder, {".json"}):
            tables = _measured(path) if path.name == "metrics.json" else {}
            if tables:
                found[path.relative_to(folder).as_posix()] = tables
    return found


def _measured(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(about, dict) or about.get("schema") != EVAL:
        return {}
    return {name: table for name, table in about.items() if _is_table(table)}


def _is_table(table: Any) -> bool:
    rows = table.values() if isinstance(table, dict) and table else ()
    return bool(rows) and all(
        isinstance(row, dict) and row and all(isinstance(value, int | float) for value in row.values()) for row in rows
    )
