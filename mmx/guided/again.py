"""What guided commands make again: an artifact's bytes from its record, and the models that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Used:
    """A model by its name and digest."""

    name: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        """As provenance keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Remade:
    """An artifact made again, and what it says of itself. models: by role."""

    data: bytes
    record: dict[str, Any]
    models: Mapping[str, Used]
