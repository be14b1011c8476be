"""What a language model of captions learns from: real captions, and frames of them with the names of things."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from mmx.data.items import split_named
from mmx.data.sentences import (
    EVERY_VAL,
    OF_PICTURES,
    OF_SOUNDS,
    OF_THINGS,
    Frames,
    filled,
    introduced,
    with_articles,
)
from mmx.data.shards import find_shards, located
from mmx.data.things import HYPERNYMS, names_by_group
from mmx.digest import sha256
from mmx.errors import UsageError

NAMED = 0.5  # share of sentences with a name in a frame, where there are names
PLAIN = 0.2  # of these, in a short frame and not in a caption's
# how often a name stands in a frame that had one of its own, where there are more than few such; else in one of its kin
OWN, FEW = 0.8, 20
# shares of sentences, if they begin by naming something, in which a picture or a sound is said to be of it: of those
# with a name, of others. A caption that begins so should go on with a name
NAMED_OPENED, OPENED = 0.6, 0.2
ANY = (*OF_PICTURES, *OF_SOUNDS)


def is_held_out(caption: str) -> bool:
    """Whether a caption is kept for val: one in EVERY_VAL, however often it is there."""
    return int(sha256(caption.encode())[:8], 16) % EVERY_VAL == 0


@dataclass(frozen=True)
class Named:
    """A group of things that have the same names. kin: numbers of the groups that are of a kind with it."""

    names: list[str]
    kin: list[int] = field(default_factory=list)


def photo_names(data: Path) -> list[Named]:
    """Labelled photos → the words that stand for them, of each group of synsets, hypernyms left out: a caption should
    say what it is. Of a kind are those with a hypernym in common. Raises UsageError."""
    metas: dict[str, dict] = {}
    for path in find_shards(data, "images"):
        for sample in located(path):
            if sample.meta.get("words") and split_named(sample.meta.get("split", "train")) == "train":
                metas.setdefault(sample.meta["synset"], sample.meta)
    if not metas:
        raise UsageError(f"--data {data}: no labelled photos of the split train", hint="images-*.tar with `words`")
    wide = set(", ".join(HYPERNYMS).split(", "))
    groups = names_by_group(list(metas.values()))
    kinds = [synsets for synsets, names in groups.items() if not wide.isdisjoint(names)]
    own = {synsets: kept for synsets, names in groups.items() if (kept := [name for name in names if name not in wide])}
    return [
        Named(names, [k for k, other in enumerate(own) if any(kind >= synsets | other for kind in kinds)])
        for synsets, names in own.items()
    ]


class Corpus:
    """Draws sentences. things: each as often as another; none: real captions alone. sounds: those of the captions that
    are of sounds; sentences like them are put after openings of sounds, and others after those of pictures. Where there
    are none, any sentence goes after any."""

    def __init__(self, captions: Sequence[str], things: Sequence[Named] = (), sounds: Iterable[str] = ()) -> None:
        self.things, self.sounds = things, frozenset(sounds)
        self.train = [caption for caption in captions if not is_held_out(caption)]
        self.val = [caption for caption in captions if is_held_out(caption)]
        self.frames = _frames(self.train, things, self.sounds)
        self.weights = _commonness(self.train, things)

    def draw(self, rng: random.Random) -> str:
        """A sentence for training."""
        if self.things and rng.random() < NAMED:
            sentence, openings = self._named(rng)
            return introduced(rng, sentence, NAMED_OPENED, openings)
        caption = rng.choice(self.train)
        return introduced(rng, caption, OPENED, self._openings(caption in self.sounds))

    def _openings(self, of_sound: bool) -> Sequence[str]:
        return ANY if not self.sounds else OF_SOUNDS if of_sound else OF_PICTURES

    def _named(self, rng: random.Random) -> tuple[str, Sequence[str]]:
        """A sentence about a thing, and what it may be put after."""
        group = rng.randrange(len(self.things))
        (name,) = rng.choices(self.things[group].names, self.weights[group])
        of_sound = bool(self.sounds) and rng.random() < 0.5
        own, kin = self.frames[of_sound][group]
        frames = own if own and rng.random() < OWN * len(own) / (len(own) + FEW) else kin
        if not frames or rng.random() < PLAIN:
            return with_articles(rng.choice(OF_THINGS).format(name)), ANY
        return with_articles(filled(rng.choice(frames), name)), self._openings(of_sound)

    def named(self, rng: random.Random, count: int) -> list[str]:
        """So many sentences about things; the same for the same generator."""
        return [self._named(rng)[0] for _ in range(count)] if self.things else []


Said = list[tuple[list[str], list[str]]]  # of each group the frames that are said of it, and of its kin


def _frames(captions: Sequence[str], things: Sequence[Named], sounds: frozenset[str]) -> tuple[Said, Said]:
    """What captions of pictures, and what those of sounds say of each group and of its kin: no keyboard barks."""
    if not things:
        return [], []
    heard = [caption for caption in captions if caption in sounds]
    seen = [caption for caption in captions if caption not in sounds]
    return _said(seen, things), _said(heard, things)


def _said(captions: Sequence[str], things: Sequence[Named]) -> Said:
    found = Frames(captions, sorted(set(chain(*(thing.names for thing in things)))))
    names = [set(thing.names) for thing in things]
    own = [[frame for frame, name in zip(found.frames, found.said_of, strict=True) if name in said] for said in names]
    return [(frames, [*chain(*(own[k] for k in thing.kin))]) for frames, thing in zip(own, things, strict=True)]


def _commonness(captions: Sequence[str], things: Sequence[Named]) -> list[list[float]]:
    """Of each name of each group how much likelier it is than one that no caption has: people say cow, not bovine. Its
    root, or the rarer ones would not be learned."""
    every = sorted(set(chain(*(thing.names for thing in things))), key=len, reverse=True)
    found = re.compile(rf"\b(?:{'|'.join(map(re.escape, every))})\b")
    counts = Counter(name for caption in captions for name in found.findall(caption)) if every else Counter()
    return [[math.sqrt(1 + counts[name]) for name in thing.names] for thing in things]
