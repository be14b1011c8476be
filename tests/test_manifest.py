"""How samples become pairs."""

from __future__ import annotations

from mmx.data.items import Item
from mmx.data.manifest import Candidate, joined
from mmx.tasks import task


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0

    def __str__(self) -> str:
        return self

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    def __lt__(self, other: str) -> bool:
        Counted.compared += 1
        return str.__lt__(self, other)

    __hash__ = str.__hash__


def test_pairing_by_label_takes_n_log_n_comparisons() -> None:
    """Of 2,000 identities on both sides; one look through all names a sample would take some four million."""
    names = [f"n{number:05d}" for number in range(2000)]
    both = [[Item(name, path, 0, 1) for name in names] for path in ("a.tar", "b.tar")]
    rows = [Candidate(item.name, (item, None), {"identity": Counted(item.name)}) for item in both[0]]
    rows += [Candidate(item.name, (None, item), {"identity": Counted(item.name)}) for item in both[1]]
    Counted.compared = 0
    manifest = joined(rows, task("voice2face"), "data")
    assert manifest.label_names == names and list(manifest.sources.labels) == list(range(2000))
    assert manifest.key == "identity" and list(manifest.targets.labels) == list(range(2000))
    assert Counted.compared < 100_000
