"""How far a text may lie from everything that a space was trained on before that has to be said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmx.errors import ModelError

SETTINGS, POINTS = "text.json", "text.safetensors"
FAR = "far from everything this space was trained on"


@dataclass(frozen=True)
class Horizon:
    """points: unit vectors (K, D), the means of the photos that each thing and each look stands for. least: the cosine
    to the nearest of them under which a text is far; calibrated on sentences of val about the photos and about others.
    """

    points: Tensor
    least: float

    def nearest(self, texts: Tensor) -> Tensor:
        """Unit vectors of texts (B, D) → their cosine to the nearest point (B,)."""
        return (texts @ self.points.T).amax(1)

    def is_far(self, texts: Tensor) -> list[bool]:
        """Of each unit vector of a text (B, D)."""
        return (self.nearest(texts) < self.least).tolist()

    def save(self, folder: Path) -> None:
        """Beside a teacher's other files."""
        from safetensors.torch import save_file

        save_file({"points": self.points.half().contiguous()}, folder / POINTS, {"format": "pt"})
        (folder / SETTINGS).write_text(json.dumps({"least": self.least}, indent=1), encoding="utf8")

    @classmethod
    def load(cls, folder: Path) -> Horizon | None:
        """That of a teacher's folder; None where it was trained without. Raises ModelError where it can't be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not (folder / SETTINGS).exists():
            return None
        try:
            points = load_file(folder / POINTS)["points"].float()
            least = float(json.loads((folder / SETTINGS).read_text(encoding="utf8"))["least"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"{folder}: {SETTINGS} and {POINTS} can't be read: {str(error).splitlines()[0]}") from None
        return cls(torch.nn.functional.normalize(points, dim=1), least)
