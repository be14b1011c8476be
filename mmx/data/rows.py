"""Manifests as programs and spreadsheets write them → rows: JSON lines, or cells with commas, semicolons or tabs
between, in any Unicode encoding, under headings in any case.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mmx.errors import InputError
from mmx.media.files import ADDRESS, is_stream
from mmx.media.formats import MAX_BYTES

KINDS = {".jsonl": True, ".ndjson": True, ".csv": False, ".tsv": False}  # whether a suffix means JSON
COLUMNS = ("source", "target", "source2", "split", "weight", "label")
SEPARATORS = ",;\t|"
BYTE_ORDER = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
SAVED = "of a spreadsheet, save it as 'CSV UTF-8'; of JSON, write one object a line"

Row = dict[str, Any]


class Rows:
    """The rows of a manifest with their lines: dicts of COLUMNS without empty ones, and the source's `name` as it is
    written there. What is unusual about it is known once they were read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._odd = path, Counter[str]()
        self.folder = Path() if is_stream(path) else path.parent  # that names are relative to

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """(where, row). Raises InputError for what can't be read, and where a row names no source or no target."""
        try:
            with self.path.open("rb") as file:
                start = file.peek(4)
                encoding = next((name for mark, name in BYTE_ORDER if start.startswith(mark)), "utf8")
                for line, row in self._rows(io.TextIOWrapper(file, encoding, newline="")):
                    where = f"{self.path}:{line}"
                    own = self._named(row, where)
                    if own:
                        yield where, self._checked(own, where)
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from None
        except UnicodeError:
            raise InputError(f"{self.path}: not a text file in UTF-8", hint=SAVED) from None
        except csv.Error as error:
            raise InputError(f"{self.path}: its cells can't be told apart: {error}", hint=SAVED) from None

    @property
    def odd(self) -> list[str]:
        """What is unusual about how it is written, for the user."""
        return [
            f"{self.path.name}: {what}" + (f" ({count} times)" if count > 1 else "")
            for what, count in self._odd.items()
        ]

    def _rows(self, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
        numbered = enumerate(lines, 1)
        first = next(((number, line) for number, line in numbered if line.strip()), None)
        if first is None:
            return
        is_json = KINDS.get(self.path.suffix.lower(), first[1].lstrip().startswith(("{", "[")))
        yield from (self._json if is_json else self._cells)(chain((first,), numbered))

    def _json(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
        for number, line in lines:
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{self.path}:{number}: not JSON: {error}", hint=SAVED) from None

    def _cells(self, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
        number, head = next(lines)
        named, separator = head.strip().lower().startswith("sep=") and head.strip()[4:], ""
        if named:  # as Excel is told
            number, head = next(lines, (number, ""))
        separator = named or max(SEPARATORS, key=lambda sign: _fitness(head, sign))
        if separator != ",":
            self._odd[f"cells are separated by {separator!r}"] = 1
        csv.field_size_limit(MAX_BYTES)  # or a long caption beside what is read here would be an error
        cells = csv.reader(chain((head,), (line for _, line in lines)), delimiter=separator, skipinitialspace=True)
        columns = [name.strip() for name in next(cells)]
        for row in cells:
            if len(row) < len(columns) and any("\n" in cell for cell in row):  # it took the rows below in
                where = f"{self.path}:{number - 1 + cells.line_num}"
                raise InputError(f"{where}: a row of {len(row)} cells that ends here", hint="is a quote left open?")
            yield number - 1 + cells.line_num, dict(zip(columns, row, strict=False))

    def _named(self, row: Any, where: str) -> Row:
        """What a row holds under its headings; nothing of an empty one."""
        if not isinstance(row, dict):
            raise InputError(f"{where}: a row needs a source and a target, and this is no JSON object", hint=SAVED)
        found = {}
        for column, value in row.items():
            name = str(column).strip().casefold()
            value = value.strip() if isinstance(value, str) else value
            if name in COLUMNS and not _missing(value):
                found[name] = value
                if name != column:
                    self._odd[f"the column {column!r} is taken as {name}"] = 1
        if all(_missing(value.strip() if isinstance(value, str) else value) for value in row.values()):
            self._odd["rows are empty"] += 1
        elif not found.keys() >= {"source", "target"}:
            there = ", ".join(str(column) for column in row) or "none"
            raise InputError(f"{where}: a row needs a source and a target; it has the columns: {there}")
        return found

    def _checked(self, found: Row, where: str) -> Row:
        """A row with the paths that it means."""
        names = {c: self._path(found[c], f"{where}: {c}") for c in ("source", "target", "source2") if c in found}
        return found | {c: str(self.folder / name) for c, name in names.items()} | {"name": names["source"]}

    def _path(self, value: Any, where: str) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{where} is {value!r}, and names of files are texts")
        name = str(value)
        if any(sign in name for sign in "\r\n\0"):
            raise InputError(f"{where} holds the end of a line: {name[:40]!r}...", hint="is a quote left open?")
        if ADDRESS.match(name):
            raise InputError(f"{where}: {name.partition('?')[0]} is an address, and manifests name files")
        if "\\" in name and not (self.folder / name).exists():
            self._odd[r"paths are written with \ for /"] += 1
            return name.replace("\\", "/")
        return name


def _missing(value: Any) -> bool:
    return value in (None, "") or (isinstance(value, float) and math.isnan(value))


def _fitness(head: str, separator: str) -> tuple[bool, int]:
    """How well a separator makes headings of a first line."""
    cells = next(csv.reader((head,), delimiter=separator, skipinitialspace=True))
    names = {cell.strip().casefold() for cell in cells}
    return names >= {"source", "target"}, len(cells)
