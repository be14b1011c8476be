"""What a GAN's critic looks through, and what tells how well a drawn picture fits its conditioning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.data.photos import Photos
from mmx.nets.face import FaceEncoder
from mmx.training.decoders.axes import Axes, regression
from mmx.training.decoders.critic import CriticConfig, Projection
from mmx.training.decoders.space import to_pixels
from mmx.training.teachers.efficientnet import EfficientNet
from mmx.training.teachers.features import resized

CALIBRATION = 256  # photos by which the frozen network's maps are scaled
NEIGHBOURS = 10  # photos that an embedding stands for


@dataclass
class Conditioned:
    """Photos with their embeddings, plain and mirrored (2, N, D); the first `semantic` coordinates are semantic.

    labels: (N,), of what is in them; -1 is another thing than any in training. near: (N, K), the photos that are real
    for each embedding; weights: (N,), how often each is drawn.
    """

    photos: Photos
    embeds: Tensor
    semantic: int
    labels: Tensor
    near: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        self.shares = self.weights.cumsum(0) / self.weights.sum()


def neighbours(features: Tensor, labels: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """The `count` photos of a label that look most like each, itself among them: (N, F), (N,) → indices (N, count)."""
    unit = F.normalize(features.float() - features.float().mean(0), dim=1)
    found = torch.zeros(len(unit), count, dtype=torch.long)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        likeness = unit[members] @ unit[members].T
        nearest = likeness.topk(min(count, len(members)), 1).indices
        found[members] = members[nearest[:, torch.arange(count) % nearest.shape[1]]]
    return found


class Gaze:
    """The frozen network as the critic uses it: taps at unit deviation, and their projection."""

    def __init__(self, net: EfficientNet, photos: Photos, critic: CriticConfig, side: int, device: str = "cpu") -> None:
        """side: pixels at which it looks."""
        self.net, self.side, self.device = net.to(device), side, device
        step = max(1, len(photos) // CALIBRATION)
        with torch.no_grad():
            taps = self.taps(to_pixels(photos.pixels[::step]).to(device))
            self.mean = net.pool(taps[-1]).mean(0)
        self.deviations = [tap.std((0, 2, 3)) + 1e-3 for tap in taps]
        self.projection = Projection([x.cpu() for x in self.deviations], critic.widths).to(device)

    def taps(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, S, S) → feature maps, finest first."""
        return self.net.taps(resized(pixels, self.side))

    def deep(self, taps: list[Tensor]) -> list[Tensor]:
        """The two coarsest taps at unit deviation."""
        return [tap / d[None, :, None, None] for tap, d in zip(taps[-2:], self.deviations[-2:], strict=True)]


class Sight(Protocol):
    """What tells how well drawn pictures fit.

    told: pictures (B, 3, S, S) and their taps → the semantic part (B, K) that they show, of any norm, with gradients.
    measure: the same for val photos' pictures, in figures; keep: which photos they are (B,).
    """

    def told(self, drawn: Tensor, taps: list[Tensor]) -> Tensor: ...

    def measure(self, drawn: Tensor, taps: list[Tensor], keep: Tensor) -> dict[str, float]: ...


class NameSight:
    """Of photos of things: the frozen network itself, by the affine map from its features to the semantic part."""

    def __init__(self, gaze: Gaze, data: Conditioned, val: Conditioned, features: Tensor) -> None:
        """features: the frozen network's, (N, F) of `data`."""
        self.gaze, self.val = gaze, val
        semantic = F.normalize(data.embeds[0, :, : data.semantic].float(), dim=1)
        # at the critic's side a photo's features are a little different: the mean is theirs
        self.axes = Axes(gaze.mean, regression(features, semantic).matrix.to(gaze.device))
        means = torch.stack([semantic[data.labels == k].mean(0) for k in data.labels.unique()])
        self.means = F.normalize(means, dim=1).to(gaze.device)

    def told(self, drawn: Tensor, taps: list[Tensor]) -> Tensor:
        return self.axes(self.gaze.net.pool(taps[-1]))

    def measure(self, drawn: Tensor, taps: list[Tensor], keep: Tensor) -> dict[str, float]:
        """`named`: the share whose synset's mean is the nearest."""
        named = F.normalize(self.told(drawn, taps), dim=1) @ self.means.T
        return {"named": (named.argmax(1).cpu() == self.val.labels[keep]).float().mean().item()}


class FaceSight:
    """Of faces: the teacher, whose features are the conditioning."""

    def __init__(self, net: FaceEncoder, val: Conditioned) -> None:
        self.net, self.val = net, val

    def told(self, drawn: Tensor, taps: list[Tensor]) -> Tensor:
        return self.net.encode_image(drawn)

    def measure(self, drawn: Tensor, taps: list[Tensor], keep: Tensor) -> dict[str, float]:
        """`likeness`: mean cosine to the faces' own features; `gender`: the share whose labelled gender it tells."""
        raw = self.told(drawn, taps)
        own = self.val.embeds[0, keep].float().to(raw.device)
        gender = self.val.labels[keep] // len(self.net.ages)
        return {
            "likeness": F.cosine_similarity(raw, own, dim=1).mean().item(),
            "gender": (self.net.gender_shares(raw).argmax(1).cpu() == gender).float().mean().item(),
        }
