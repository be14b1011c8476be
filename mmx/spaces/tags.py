"""Which labels fit a medium (zero-shot classification, as in CLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mmx.errors import InputError, UsageError
from mmx.spaces.base import Space
from mmx.spaces.parts import Part


@dataclass(frozen=True)
class Tag:
    """A label, its probability among all labels, and the cosine of its text and the medium."""

    label: str
    share: float
    similarity: float


class Tagger:
    """Labels of a space, whose texts are embedded once for each modality."""

    def __init__(self, space: Space, labels: Sequence[str] = ()) -> None:
        self.space, self.labels = space, list(labels) or list(space.labels)
        if not self.labels:
            raise UsageError(f"the space {space.name} brings no labels", hint="give some: --labels dog,cat,car")
        self._points: dict[str, Tensor] = {}

    def points(self, modality: str) -> Tensor:
        """The labels' unit vectors (K, D) beside media of a modality."""
        if modality not in self._points:
            self._points[modality] = self.space.encode_labels(self.labels, modality)
        return self._points[modality]

    def tags(self, vector: Tensor, modality: str, top: int) -> list[Tag]:
        """A medium's unit vector (D,) → the `top` labels that fit best, the best first."""
        similar = self.points(modality) @ vector
        shares = (similar * self.space.scale[modality]).softmax(0)
        best = shares.topk(min(top, len(self.labels)))
        return [
            Tag(self.labels[k], round(share, 4), round(float(similar[k]), 4))
            for share, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def none_of_these(self, vector: Tensor, modality: str) -> bool | None:
        """Whether a medium (D,) is likely of something that no label names; None where that was not calibrated."""
        known = self.space.calibration.tags.get(modality) if self.space.calibration else None
        if known is None:
            return None
        return bool(evidence(self.points(modality) @ vector, self.space.scale[modality]) < known.at)


def evidence(similar: Tensor, scale: float) -> Tensor:
    """Similarities (..., K) with labels → how much speaks for any of them (...): the free energy (Liu et al. 2020), in
    units of a similarity. Several labels that fit a little speak for there being something more than the best one alone
    does."""
    return (similar * scale).logsumexp(-1) / scale


def refuse_texts(part: Part, name: str) -> None:
    """Raise InputError for a part that is a text: it is in words already."""
    if part.modality == "text":
        raise InputError(f"{name}: it is a text, in words already", hint="mmx tag takes pictures, sounds and videos")
