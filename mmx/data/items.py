"""Files and members of tars to learn from, in a few dozen bytes each: where their bytes are, and what is
known of them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmx.errors import InputError

MAX_BAD = 0.05  # the share of samples that may be unusable before a run stops
SPLITS = ("train", "val")  # any other name is a split that training never touches
SPELLINGS = {"training": "train", "validation": "val", "valid": "val", "development": "val", "dev": "val"}
SPELLINGS |= {"testing": "test"}
SURROGATES = "surrogatepass"  # of names that are no UTF-8, as Python keeps them
MAX_SPLITS = 100  # that are told apart; all others are as the last of these


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
        except ValueError as error:  # a name that no file can have
            raise InputError(f"{self.name}: {error}") from None
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
        self._text += (item.path if alone else item.name).encode("utf8", SURROGATES)
        self._ends.append(len(self._text))
        self._path_of.append(-1 if alone else self._paths.setdefault(item.path, len(self._paths)))
        self._offset.append(item.offset)
        self._size.append(item.size)
        self._keys.append(item.key)

    def __len__(self) -> int:
        return len(self._size)

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]
        text = self._text[self._ends[index] : self._ends[index + 1]].decode("utf8", SURROGATES)
        if self._path_of[index] < 0:
            return Item(text, text)
        if len(self._paths) != len(self._by_number):
            self._by_number = list(self._paths)
        return Item(
            text, self._by_number[self._path_of[index]], self._offset[index], self._size[index], self._keys[index]
        )

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))


def split_named(name: Any) -> str:
    """A split by its usual name: `Train`, `training` → train, `validation` → val, and any other in lower case."""
    text = str(name).strip().casefold()
    return SPELLINGS.get(text, text)


@dataclass
class Listing:
    """One side of the pairs: items, the number of each one's label (-1: none), of its split (an index into
    `split_names`, which begins as SPLITS does), its weight. said: splits as the data calls them, and how many items.
    """

    items: Items = field(default_factory=Items)
    labels: array = field(default_factory=lambda: array("i"))
    splits: array = field(default_factory=lambda: array("b"))
    weights: array = field(default_factory=lambda: array("f"))
    split_names: list[str] = field(default_factory=lambda: list(SPLITS))
    said: Counter[str] = field(default_factory=Counter)

    def add(self, split: Any, label: int, weight: float, item: Item) -> None:
        """Add an item and what is known of it."""
        name = split_named(split)
        if name not in self.split_names and len(self.split_names) < MAX_SPLITS:
            self.split_names.append(name)
        self.said[str(split)] += 1
        self.items.append(item)
        self.labels.append(label)
        self.splits.append(self.split_names.index(name) if name in self.split_names else MAX_SPLITS - 1)
        self.weights.append(weight)

    def counts(self) -> dict[str, int]:
        """How many items each split has, but for those that have none."""
        counted = Counter(self.splits)
        return {name: counted[number] for number, name in enumerate(self.split_names) if counted[number]}

    def odd_splits(self) -> list[str]:
        """What the data calls its splits, where training takes it as another name or leaves it out."""
        renamed = (
            f"the split {said!r} is taken as {split_named(said)}: {count} items"
            for said, count in self.said.items()
            if split_named(said) != said
        )
        return [*renamed, *self.left_out()]

    def left_out(self) -> list[str]:
        """The splits that neither training nor anybody's habit knows."""
        known = (*SPLITS, "test")
        return [
            f"the split {name!r} is neither train nor val, and training leaves it out: {count} items"
            for name, count in self.counts().items()
            if name not in known
        ]


def refuse_many_bad(bad: Sequence[str], total: int, where: str = "") -> None:
    """Stop where too many of `total` samples can't be used; `bad` names them. Raises InputError."""
    if len(bad) > MAX_BAD * total:
        raise InputError(
            f"{where}{len(bad)} of {total} samples can't be read, such as {bad[0]}",
            hint="mmx data check names them all; mend or remove them: a run stops when more than 5 % are bad",
        )
