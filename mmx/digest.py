"""sha256 of bytes and of files. That of a large file is remembered until it changes: weights are many gigabytes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

LARGE = 1 << 20  # bytes; what is smaller is read each time
LIMIT = 1 << 20  # bytes of the memo: beyond it is begun anew
SETTLED = 2_000_000_000  # ns: what changed less than this ago might change again within one tick of the file system


def cache_root() -> Path:
    """Where mmx keeps what it can compute again: MMX_CACHE, or the user's cache folder, or where a user has no home (in
    containers), a temporary one."""
    given = os.environ.get("MMX_CACHE")
    if given:
        return Path(given)
    import tempfile

    import platformdirs

    with suppress(RuntimeError):  # no home; earlier versions of the library give "~" for it
        found = Path(platformdirs.user_cache_dir("mmx"))
        if found.is_absolute():
            return found
    return Path(tempfile.gettempdir()) / f"mmx-{os.getuid()}"


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path, *, fresh: bool = False) -> str:
    """Hex digest of a file. fresh: read it even where its size and times did not change since. Raises OSError."""
    place, before = os.path.realpath(path), _state(path)
    known = _memo(_file())
    if not fresh and place in known and known[place][:-1] == before:
        return str(known[place][-1])
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    state = _state(path)
    if state == before and state[0] >= LARGE and time.time_ns() - max(state[1:]) > SETTLED:
        _remember(place, [*state, digest])
    return digest


def _state(path: Path) -> list[int]:
    """What changes with a file's content: its size and both times, since installers set the one to what they like."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _file() -> Path:
    return cache_root() / "digests.jsonl"


@cache
def _memo(file: Path) -> dict[str, list[int | str]]:
    """Path → size, times, digest: of every line that was written whole, the last of a path."""
    known = {}
    with suppress(OSError):
        if file.stat().st_size > LIMIT:
            file.unlink()
        for line in file.read_text(encoding="utf8", errors="replace").splitlines():
            with suppress(TypeError, ValueError):
                place, *row = json.loads(line)
                known[place] = row
    return known


def _remember(place: str, row: list[int | str]) -> None:
    """Add a line in one write, so that several processes can. A cache that may not be written to stays as it is."""
    file = _file()
    if _memo(file).get(place) == row:
        return
    _memo(file)[place] = row
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as lines:
            lines.write(f"{json.dumps([place, *row])}\n".encode())
