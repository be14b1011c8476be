"""Pairs to train a bridge on: rows of two caches that belong together, and how to draw from them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmx.data.cache import Cache
from mmx.data.digests import Digests
from mmx.data.fill import Features, Space, resolve
from mmx.data.items import SPLITS, Listing, refuse_many_bad
from mmx.data.manifest import Manifest
from mmx.data.sharing import Group, Processes
from mmx.data.streamed import settle
from mmx.digest import cache_root
from mmx.errors import InputError


class Groups:
    """The members of each label, for drawing: two arrays, however many labels there are."""

    def __init__(self, labels: Tensor) -> None:
        self.order = torch.argsort(labels, stable=True)
        self.labels, counts = torch.unique_consecutive(labels[self.order], return_counts=True)
        self.counts = counts
        self.starts = torch.cumsum(counts, 0) - counts

    def draw(self, labels: Tensor, places: Tensor) -> Tensor:
        """A member of each of `labels` (B,); places (B,) in [0, 1) choose it."""
        group = torch.searchsorted(self.labels, labels)
        return self.order[self.starts[group] + (places * self.counts[group]).long()]


@dataclass
class Rows:
    """One side: the rows (N,) of a cache and the label of each."""

    cache: Cache
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, index: int, start: int = 0, count: int = 1 << 62) -> Tensor:
        """Item `index`, or a stretch of it."""
        return self.cache.read(int(self.rows[index]), start, count)

    def length(self, index: int) -> int:
        """How many entries an item has."""
        return int(self.cache.lengths[int(self.rows[index])])

    def all(self) -> Tensor:
        """Every item, where all have one length: (N, L, *suffix)."""
        return self.cache.rows(self.rows.tolist())


@dataclass
class Pairs:
    """What a bridge is trained or measured on. direct: equal positions belong together; otherwise equal labels do."""

    sources: Rows
    targets: Rows
    direct: bool
    weights: Tensor
    second_sources: Rows | None = None  # of direct pairs with two sources: what is seen beside each

    @cached_property
    def groups(self) -> tuple[Groups, Groups]:
        """Both sides by label."""
        return Groups(self.sources.labels), Groups(self.targets.labels)

    @cached_property
    def shared(self) -> Tensor:
        """The labels that both sides have."""
        mine, theirs = self.groups
        return mine.labels[torch.isin(mine.labels, theirs.labels)]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sources (size,) and their labels: labels equally often, or pairs by weight."""
        if self.direct:
            picks = torch.multinomial(self.weights, size, replacement=True, generator=generator)
            return picks, self.sources.labels[picks]
        labels = self.shared[torch.randint(len(self.shared), (size,), generator=generator)]
        return self.groups[0].draw(labels, torch.rand(size, generator=generator)), labels

    def subset(self, picks: Tensor) -> Pairs:
        """The pairs of some sources."""
        sources = Rows(self.sources.cache, self.sources.rows[picks], self.sources.labels[picks])
        targets = self.targets
        if self.direct:
            targets = Rows(targets.cache, targets.rows[picks], targets.labels[picks])
        second = self.second_sources
        if second is not None:
            second = Rows(second.cache, second.rows[picks], second.labels[picks])
        return Pairs(sources, targets, self.direct, self.weights[picks], second)

    def targets_of(self, picks: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        """A target for each source: its own in direct pairs, else any of its label."""
        return picks if self.direct else self.groups[1].draw(labels, places)


def either_view(pairs: Pairs, picks: Tensor, places: Tensor) -> Tensor:
    """Targets (B, D), plain or mirrored by `places` (B,) in [0, 1)."""
    views_ = [pairs.targets.get(i).float() for i in picks.tolist()]
    return torch.stack([view[int(place * len(view))] for view, place in zip(views_, places.tolist(), strict=True)])


def others_of(pairs: Pairs, picks: Tensor, labels: Tensor, places: Tensor, views: Tensor) -> Tensor:
    """The second source of each item (B, D): its own picture in direct pairs, else any picture of its label."""
    if pairs.second_sources is not None:
        rows = [pairs.second_sources.get(i).float() for i in picks.tolist()]
        return torch.stack([row[int(view * len(row))] for row, view in zip(rows, views.tolist(), strict=True)])
    return either_view(pairs, pairs.groups[1].draw(labels, places), views)


@dataclass
class Loaded:
    """The train split, the val split where there is one, and what could not be used."""

    train: Pairs
    val: Pairs | None
    manifest: Manifest
    skipped: list[str]


def load_pairs(
    manifest: Manifest,
    source: Features,
    target: Features,
    team: Processes,
    *,
    cache: Path | None = None,
    quiet: bool = False,
    looks: bool = False,
) -> Loaded:
    """Find or compute both sides' rows, and with `looks` those of the second source, which are computed as the targets
    are. Raises InputError when a side has more than 5 % that can't be used, or nothing to train on."""
    root = cache or cache_root()
    digests = Digests(root)
    group = Group.of(root, team)
    quiet = quiet or not team.leads
    spaces = [Space.of(root, source), Space.of(root, target)]
    if manifest.remote:
        settle(manifest, spaces, group, quiet=quiet)
    wanted = list(zip((manifest.sources, manifest.targets), spaces, strict=True))
    if looks and manifest.second_sources is not None:
        wanted.append((manifest.second_sources, spaces[1]))
    sides = []
    for side, space in wanted:
        tell = _teller(space.features.name, len(side.items), quiet)
        found = resolve(side.items, space, digests, group, tell)
        refuse_many_bad(found.bad, len(side.items))
        sides.append((space.cache, found))
    skipped = [name for _, found in sides for name in found.bad]
    if skipped and not quiet:
        print(
            f"skipped, because they can't be used: {', '.join(skipped[:5])}"
            + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""),
            file=sys.stderr,
        )
    for line in () if quiet else manifest.sources.left_out():
        print(line, file=sys.stderr)
    labels = manifest.labels()
    splits = [_split(manifest, sides, labels, number) for number in range(len(SPLITS))]
    if splits[0] is None:
        there = ", ".join(f"{name} {count}" for name, count in manifest.sources.counts().items())
        raise InputError(
            f"the train split has no usable pairs; the data's splits are: {there}",
            hint="mmx data check says what is wrong with each sample",
        )
    if manifest.direct and not splits[0].weights.any():
        raise InputError("all weights of the train split are zero")
    # names and places take memory, and are not asked again
    manifest.sources, manifest.targets, manifest.second_sources = Listing(), Listing(), None
    return Loaded(splits[0], splits[1], manifest, skipped)


def _split(manifest: Manifest, sides, labels: tuple[np.ndarray, np.ndarray], number: int) -> Pairs | None:
    all_sides = [manifest.sources, manifest.targets, manifest.second_sources][: len(sides)]
    keeps = [
        (found.rows >= 0) & (np.frombuffer(side.splits, np.int8) == number)
        for (_, found), side in zip(sides, all_sides, strict=True)
    ]
    if manifest.direct:
        keeps = [np.logical_and.reduce(keeps)] * len(keeps)
    if not keeps[0].any() or not keeps[1].any():
        return None
    rows = [
        Rows(space, torch.from_numpy(found.rows[keep]), torch.from_numpy(own[keep]))
        for (space, found), keep, own in zip(sides, keeps, (*labels, labels[0]), strict=False)
    ]
    weights = torch.from_numpy(_weights(manifest.sources)[keeps[0]])
    return Pairs(rows[0], rows[1], manifest.direct, weights, *rows[2:])


def _weights(side: Listing) -> np.ndarray:
    return np.frombuffer(side.weights, np.float32).copy()


def _teller(name: str, total: int, quiet: bool) -> Callable[[int], None]:
    """What says now and then how many files of a side are in the cache."""

    def tell(done: int) -> None:
        if not quiet and (done == total or done % 4096 == 0):
            print(f"{name}: {done} of {total} files are in the cache", file=sys.stderr, flush=True)

    return tell
