"""What reading a medium may find that the user should know, by kind."""

from __future__ import annotations

from typing import Self

KINDS = {
    "cut": "a sound that ends before its header says",
    "damaged": "a sound with places that can't be decoded, which are left out",
    "opposed": "a sound whose channels are of opposite phase, of which one is heard",
    "narrow": "a sound sampled as on a telephone: its upper frequencies are missing",
    "range": "a picture of deep or float samples, shown by their range",
}


class Note(str):
    """A line about a medium. kind: of KINDS."""

    kind: str

    def __new__(cls, kind: str, text: str) -> Self:
        note = super().__new__(cls, text)
        note.kind = kind
        return note

    def __getnewargs__(self) -> tuple[str, str]:  # by which it is copied
        return self.kind, str(self)
