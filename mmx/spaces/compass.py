"""Where things lie in a space once the gap between modalities is taken off, and the sums that queries are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.errors import UsageError
from mmx.media.arrays import read_array
from mmx.spaces.base import MODALITIES, Space
from mmx.spaces.parts import Cuts, Part, parts_of, vectors_of
from mmx.spaces.query import Term

CANCELLED = 1e-4  # norm of a sum whose terms leave nothing


class Compass:
    """Directions in a space from the means (M, D) of modalities (the modality gap, Liang et al. 2022)."""

    def __init__(self, space: Space, means: Tensor) -> None:
        self.space, self.means = space, means

    def direction(self, parts: Sequence[Part]) -> Tensor:
        """Parts of one file → their mean direction (D,), unit norm, less the means of their modalities."""
        vectors = vectors_of(self.space, parts)
        means = self.means[[MODALITIES.index(part.modality) for part in parts]]
        return F.normalize(F.normalize(vectors - means, dim=-1).mean(0), dim=-1)

    def term(self, term: Term, stdin: Callable[[], bytes] = bytes, cuts: Cuts = Cuts()) -> Tensor:
        """A term without its weight → its direction (D,). Raises InputError, ModelError."""
        if term.kind == "text":
            return self.direction([Part("text", term.value)])
        if term.kind == "array":
            return self.direction([Part("array", read_array(term.source, term.value))])
        source = stdin() if term.kind == "stdin" and term.data is None else term.source
        return self.direction(list(parts_of(self.space, source, term.name, cuts)))

    def query(self, terms: Sequence[Term], stdin: Callable[[], bytes] = bytes, cuts: Cuts = Cuts()) -> Tensor:
        """Terms → their weighted sum, a unit vector (D,). Raises InputError, ModelError, UsageError where nothing is
        left."""
        return self.sum([(term.weight, self.term(term, stdin, cuts)) for term in terms])

    def sum(self, weighted: Sequence[tuple[float, Tensor]]) -> Tensor:
        """Directions (D,) with weights → their sum, a unit vector (D,). Raises UsageError where nothing is left."""
        total = torch.stack([weight * direction for weight, direction in weighted]).sum(0)
        if total.norm() < CANCELLED:
            raise UsageError("the terms of the query cancel each other", hint="give them other weights")
        return F.normalize(total, dim=-1)


def known_means(space: Space) -> Tensor:
    """(M, D): the means of modalities as a calibration has them, or the models; else of texts that of the labels', and
    nothing.

    The mean of sounds is then taken to be that of texts, which is nearer to it than nothing; that of arrays to be that
    of pictures, with which they were matched.
    """
    means = torch.zeros(len(MODALITIES), space.dim)
    if space.labels:
        texts = space.encode_labels(space.labels, next(iter(space.prompts))).mean(0)
        means[[MODALITIES.index("text"), MODALITIES.index("sound")]] = texts
    known = {**space.means, **(space.calibration.means if space.calibration else {})}
    if "array" not in known and "image" in known:
        known["array"] = known["image"]
    for modality, mean in known.items():
        means[MODALITIES.index(modality)] = torch.tensor(mean)
    return means
