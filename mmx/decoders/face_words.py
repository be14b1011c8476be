"""Texts about faces → directions in the face teacher's feature: what stands in for a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmx.errors import ModelError
from mmx.media.face_texts import said
from mmx.nets.face import GENDERS

FILE = "words.safetensors"
KNOTS = (20.0, 26.0, 33.0, 43.0, 56.0, 70.0)  # years; between two of them an effect is interpolated


def age_weights(ages: Tensor) -> Tensor:
    """Ages (N,) in years → how much of each knot's effect they have (N, K): piecewise linear, flat outside."""
    knots = torch.tensor(KNOTS)
    ages = ages.float().clamp(knots[0], knots[-1])
    left = (torch.searchsorted(knots, ages, right=True) - 1).clamp(0, len(knots) - 2)
    share = (ages - knots[left]) / (knots[left + 1] - knots[left])
    weights = torch.zeros(len(ages), len(knots))
    weights.scatter_(1, left[:, None], (1 - share)[:, None])
    return weights.scatter_add_(1, left[:, None] + 1, share[:, None])


def described(weights: Tensor, gender: Tensor) -> Tensor:
    """Weights of ages (N, K), and gender (N,), -0.5 female to 0.5 male → regressors (N, 2 K)."""
    return torch.cat([weights, weights * gender[:, None]], 1)


class FaceWords:
    """effects (2 K, D): what each regressor does to the raw feature, by least squares; typical (2 K,): the regressors'
    mean over faces; mean (D,): the mean raw feature."""

    def __init__(self, effects: Tensor, typical: Tensor, mean: Tensor) -> None:
        self.effects, self.typical, self.mean = effects.float(), typical.float(), mean.float()

    @classmethod
    def fit(cls, raw: Tensor, ages: Tensor, male: Tensor) -> FaceWords:
        """Raw features (N, D), ages in years (N,), and whether they are labelled male (N,)."""
        regressors = described(age_weights(ages), male.float() - 0.5)
        return cls(torch.linalg.lstsq(regressors, raw).solution, regressors.mean(0), raw.mean(0))

    def shift(self, text: str) -> Tensor:
        """A text → what it adds to the mean face's raw feature (D,); what it leaves open stays typical. Raises
        InputError."""
        about, count = said(text), len(KNOTS)
        typical_gender = self.typical[count:].sum()
        weights = self.typical[:count] if about.age is None else age_weights(torch.tensor([about.age]))[0]
        gender = typical_gender if about.gender is None else torch.tensor(GENDERS.index(about.gender) - 0.5)
        return (described(weights[None], gender[None])[0] - self.typical) @ self.effects

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Texts → their shifts (B, D)."""
        return torch.stack([self.shift(text) for text in texts])

    def save(self, folder: Path) -> None:
        """Write the file into a decoder's folder."""
        from safetensors.torch import save_file

        tensors = {name: value.half().contiguous() for name, value in vars(self).items()}
        save_file(tensors, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> FaceWords:
        """Read what `save` wrote. Raises ModelError where it is not there."""
        from safetensors.torch import load_file

        if not (folder / FILE).is_file():
            raise ModelError(
                f"{folder.name}: this face decoder reads no texts",
                hint="mmx train-decoder text --init DECODER --data DIR -o RUN makes it",
            )
        return cls(**load_file(folder / FILE))
