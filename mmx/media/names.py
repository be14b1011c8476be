"""Names of files, which are bytes of any encoding: which of a folder's are inputs, what their results are called."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

NAME_BYTES = 255  # of one name, on the file systems in use


def walk(folder: Path, suffixes: Collection[str], *, hidden: bool = False) -> list[Path]:
    """The files of some suffixes (with the dot, in lower case) below a folder and the folders linked in it, sorted.

    Hidden files are none of them, such as the `._a.wav` that macOS puts beside an `a.wav`; with `hidden` they alone
    are. A linked folder that leads back to one above it is not entered; what may not be read is left out.
    """
    return sorted(
        path
        for path in _files(folder, (_identity(folder),))
        if path.suffix.lower() in suffixes and is_hidden(path.relative_to(folder)) == hidden
    )


def is_hidden(path: Path) -> bool:
    """Whether a file, or a folder that it is in, has a name that begins with a dot."""
    return any(part.startswith(".") and part != ".." for part in path.parts)


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        path = folder / entry.name
        if entry.is_file():
            yield path
        elif entry.is_dir() and (own := _identity(path)) not in above:
            yield from _files(path, (*above, own))


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder is known by, whatever link leads to it."""
    try:
        stat = os.stat(folder)
    except OSError:
        return 0, 0
    return stat.st_dev, stat.st_ino


def told_apart(paths: Sequence[tuple[Path, str]]) -> list[Path]:
    """Paths without their suffixes, and the suffixes → the same; with the suffix where two would be one.

    `a.wav` and `a.mp3` give `a.wav` and `a.mp3`, and `b.wav` gives `b`: whatever the order, the same.
    """
    names = [path for path, _ in paths]
    while True:
        counts = Counter(names)
        longer = [
            path.with_name(path.name + suffix) if counts[name] > 1 else name
            for (path, suffix), name in zip(paths, names, strict=True)
        ]
        if longer == names:
            return names
        names = longer


def fitted(stem: str, ending: str) -> str:
    """A file's name of a stem and what follows it; of one that is too long its beginning and a digest of the stem."""
    if len(os.fsencode(stem + ending)) <= NAME_BYTES:
        return stem + ending
    ending = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}{ending}"
    return os.fsencode(stem)[: NAME_BYTES - len(os.fsencode(ending))].decode("utf8", "ignore") + ending


def printable(name: str) -> str:
    r"""A name as text that any stream and format takes: a byte that is no UTF-8 as \udcNN."""
    return name.encode("utf8", "backslashreplace").decode()
