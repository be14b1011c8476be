"""Files and members of tars to learn from, in a few dozen bytes each: where their bytes are, and what is
known of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmx.errors import InputError

MAX_BAD = 0.05  # the share of samples that may be unusable before a run stops
SPLITS = ("train", "val")  # any other name is a split that training never touches


@dataclass(frozen=True)
class Item:
    """One file, or one member of a tar: name is for people; offset and size say where its bytes are.

    Of what was streamed there is only the key of its bytes, which are in the cache.
    """

    name: str
    path: str
    offset: int = 0
    size: int = -1  # -1: to the end
    key: int = 0  # 0: not known yet

    def read(self) -> bytes:
        """Its bytes. Raises InputError, also where there are fewer than there should be."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from None
        if len(data) < self.size:
            raise InputError(f"{self.name}: {self.path} ends before it")
        return data


class Items(Sequence[Item]):
    """Items in a few dozen bytes each: names and paths in one string of bytes, places in arrays."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        self._paths: dict[str, int] = {}
        self._by_number: list[str] = []
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
        if len(self._paths) != len(self._by_number):
            self._by_number = list(self._paths)
        return Item(
            text, self._by_number[self._path_of[index]], self._offset[index], self._size[index], self._keys[index]
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))


@dataclass
class Listing:
    """One side of the pairs: items, the number of each one's label (-1: none), of its split (index into SPLITS, 2:
    other), its weight.
    """

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


def refuse_many_bad(bad: Sequence[str], total: int, where: str = "") -> None:
    """Stop where too many of `total` samples can't be used; `bad` names them. Raises InputError."""
    if len(bad) > MAX_BAD * total:
        raise InputError(
            f"{where}{len(bad)} of {total} samples can't be read, such as {bad[0]}",
            hint="mmx data check names them all; mend or remove them: a run stops when more than 5 % are bad",
        )
