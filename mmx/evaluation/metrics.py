"""What the protocols share: rows of pictures, distances between sets, distances to the training data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.data.photos import Photos
from mmx.media.image import fit_square
from mmx.translate.base import generator_for
from mmx.translate.sound2img import SoundTranslator


@dataclass
class PictureSet:
    """Pictures to be judged, and the class that each should show (an index into the labels)."""

    name: str
    pictures: list[Image.Image]
    truth: Tensor


def first_of_each(values: Sequence[str | None], classes: Sequence[str], limit: int) -> list[int]:
    """The first `limit` positions of each class among `values`, class by class."""
    members: dict[str, list[int]] = {name: [] for name in classes}
    for position, value in enumerate(values):
        if value in members and len(members[value]) < limit:
            members[value].append(position)
    return [position for own in members.values() for position in own]


def top_accuracy(logits: Tensor, truth: Tensor) -> dict[str, float]:
    """Top-1 and top-5 of (N, K) logits, as means over the classes that occur in `truth` (N,)."""
    ranks = logits.topk(min(5, logits.shape[1])).indices == truth[:, None]
    classes = truth.unique()
    top1 = torch.stack([ranks[truth == k, 0].float().mean() for k in classes])
    top5 = torch.stack([ranks[truth == k].any(1).float().mean() for k in classes])
    return {"top1": top1.mean().item(), "top5": top5.mean().item()}


def draw(
    translator: SoundTranslator, points: Sequence[Tensor], seed: int, indices: Sequence[int] | None = None
) -> list[Image.Image]:
    """A picture for each point (D,) of the space, as the command would draw it; item i is the result `indices[i]`."""
    indices = range(len(points)) if indices is None else indices
    pairs = zip(points, indices, strict=True)
    return _drawn(translator, [translator.conditioning(point, seed, index) for point, index in pairs])


def draw_texts(translator: SoundTranslator, labels: Sequence[str], seed: int) -> list[Image.Image]:
    """A picture for each name, as if it had been heard."""
    return _drawn(translator, [translator.text_conditioning(label, seed, index) for index, label in enumerate(labels)])


def _drawn(translator: SoundTranslator, given: Sequence[tuple[Tensor, torch.Generator]]) -> list[Image.Image]:
    return translator.decoder.decode(torch.stack([c for c, _ in given]), generators=[g for _, g in given])


def decode(translator: SoundTranslator, targets: Tensor, seed: int) -> list[Image.Image]:
    """Raw conditionings (N, D) → pictures: the oracle's path."""
    return translator.decoder.decode(targets, generators=[generator_for(seed, index) for index in range(len(targets))])


def distances(features: Tensor, real: Tensor, seed: int = 0) -> dict[str, float]:
    """FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018) between two sets of a judge's features (N, C)."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Given(torch.nn.Module):
        """torchmetrics wants an extractor of pictures; these features are already extracted."""

        num_features = features.shape[1]

        def forward(self, values: Tensor) -> Tensor:
            return values.flatten(1).float()

    warnings.filterwarnings("ignore", message=".*will save all extracted features.*")  # they are few here
    torch.manual_seed(seed)  # KID draws subsets
    size = min(100, len(features), len(real))
    fid = FrechetInceptionDistance(feature=Given(), input_img_size=(features.shape[1], 1, 1), normalize=False)
    kid = KernelInceptionDistance(feature=Given(), subset_size=size, subsets=50)
    for metric in (fid, kid):
        metric.update(real[:, :, None, None], real=True)
        metric.update(features[:, :, None, None], real=False)
    mean, _ = kid.compute()
    return {"fid": fid.compute().item(), "kid": mean.item()}


def nearest(pictures: Sequence[Image.Image], training: Photos, part: int = 2048) -> Tensor:
    """RMS pixel difference (0..1) of each picture to its nearest training picture, plain or mirrored. (N,)"""
    side = training.pixels.shape[1]
    array = torch.from_numpy(np.stack([np.asarray(fit_square(picture, side)) for picture in pictures]))
    queries = torch.cat((array, array.flip(2))).flatten(1).float()
    best = torch.full((len(queries),), float("inf"))
    for bank in training.pixels.split(part):
        known = bank.flatten(1).float()
        squared = queries.square().sum(1)[:, None] + known.square().sum(1) - 2 * queries @ known.T
        best = torch.minimum(best, squared.min(1).values)
    root = (best.clamp(min=0) / queries.shape[1]).sqrt() / 255
    return torch.minimum(*root.chunk(2))


def spread(features: Tensor, groups: Tensor) -> float:
    """How much pictures of one group differ: the mean distance of two of a group in features (N, C) of unit norm, as a
    mean over the groups (N,) that have two; NaN where none has.
    """
    unit = F.normalize(features.float(), dim=1)
    own = [unit[groups == k] for k in groups.unique()]
    return torch.tensor([torch.pdist(members).mean() for members in own if len(members) > 1]).mean().item()


def grid_energy(pictures: Sequence[Image.Image], real: Sequence[Image.Image]) -> float:
    """How much more energy pictures have than real ones of their size at the frequencies of a grid of patches: the most
    over grids of 2 to 16 pixels, as a ratio; a texture that repeats from patch to patch stands out.
    """
    own, others = (_spectrum(some) for some in (pictures, real))
    side = len(own)
    ratios = []
    for period in range(2, 17):
        if side % period == 0:
            at = torch.arange(0, side, side // period)
            ratios.append((own / others)[at][:, at].flatten()[1:].mean())  # of all but the mean colour
    return torch.stack(ratios).max().item()


def _spectrum(pictures: Sequence[Image.Image]) -> Tensor:
    """Mean power (S, S) of the brightness of pictures of S pixels a side."""
    grey = torch.from_numpy(np.stack([np.asarray(picture.convert("L")) for picture in pictures])).float()
    return torch.fft.fft2(grey).abs().square().mean(0)


def quantiles(values: Tensor) -> dict[str, float]:
    """The least and the middle value."""
    return {"min": values.min().item(), "median": values.median().item()}
