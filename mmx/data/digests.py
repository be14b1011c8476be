"""A memo of what files contain: keys by path, size and time of change, so that a file that did not change is not read
again.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmx.data.cache import content_key, make_folder
from mmx.data.items import Item
from mmx.media.names import printable

NOTHING = content_key(b"")
MASK = (1 << 64) - 1  # SQLite's integers have a sign, keys have none
Stat = tuple[int, int]  # size in bytes, time of change in ns


def stat_of(path: str) -> Stat | None:
    """What tells whether a file changed; None where it can't be asked."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class Digests:
    """The memo of a cache folder, which many processes share, also those of several machines on a network file system.

    It is only a memo: where it can't be opened, read or written, files are read again, and nothing else changes.
    SQLite's write-ahead log would need memory that all processes share, and so one machine; the journal that is deleted
    after each write needs locks alone.
    """

    def __init__(self, root: Path) -> None:
        make_folder(root)
        path = root / "digests.sqlite"
        self.base: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):
            self.base = _opened(path)

    def known(self, items: Sequence[Item]) -> list[int]:
        """The key of each item; 0 where it is not known, or the file changed."""
        keys = [item.key for item in items]
        if self.base is None or all(keys):
            return keys
        stats = {path: stat_of(path) for path in {item.path for item in items if not item.key}}
        try:
            self.base.execute("BEGIN")  # one lock for all of them
            for number, item in enumerate(items):
                if not item.key:
                    keys[number] = self._key(item, stats[item.path])
            self.base.commit()
        except sqlite3.Error:
            self.base = None
        return keys

    def _key(self, item: Item, stat: Stat | None) -> int:
        """What the table holds of an item, if its file still is as it was then."""
        row = self.base.execute(
            "SELECT size, changed, key FROM seen WHERE path = ? AND offset = ?",
            (_place(item), item.offset),
        ).fetchone()
        if row is None or row[:2] != stat:
            return 0
        key = row[2] & MASK
        if key == NOTHING and (row[0] if item.size < 0 else item.size):
            return 0  # earlier versions learned this of files that they could not read
        return key

    def learn(self, items: Sequence[Item], keys: Sequence[int], stats: Sequence[Stat | None]) -> None:
        """Remember the keys of items. stats: as they were before the items were read; one that changed since is not
        learned.
        """
        rows = [
            (_place(item), item.offset, *stat, struct.unpack("<q", struct.pack("<Q", key))[0])
            for item, key, stat in zip(items, keys, stats, strict=True)
            if stat is not None and stat == stat_of(item.path)
        ]
        if self.base is None or not rows:
            return
        try:
            with self.base:
                self.base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error:
            self.base = None


def _place(item: Item) -> str:
    return printable(os.path.abspath(item.path))


def _opened(path: Path) -> sqlite3.Connection:
    """The table, made where it is not there; of a folder that may only be read, as it is. Raises sqlite3.Error."""
    try:
        path.touch()  # by itself SQLite gives the group no right to write, whatever the umask
    except OSError:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    base = sqlite3.connect(path, timeout=0, check_same_thread=False)
    with suppress(
        sqlite3.OperationalError
    ):  # an earlier version made it, and another process has it open: the next run will
        base.execute("PRAGMA journal_mode=DELETE")
    base.execute("PRAGMA busy_timeout=60000")
    base.execute(
        "CREATE TABLE IF NOT EXISTS seen "
        "(path TEXT, offset INT, size INT, changed INT, key INT, PRIMARY KEY (path, offset))"
    )
    return base
