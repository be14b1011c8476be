"""What a language model of captions learns from: real captions, and frames of them with the names of things."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from mmx.data.items import split_named
from mmx.data.sentences import EVERY_VAL, OF_THINGS, Frames, filled, introduced, with_articles
from mmx.data.shards import find_shards, located
from mmx.data.things import HYPERNYMS, names_by_group
from mmx.digest import sha256
from mmx.errors import UsageError

NAMED = 0.5  # share of sentences with a name in a frame, where there are names
PLAIN = 0.2  # of these, in a short frame and not in a caption's
# shares of sentences, if they begin by naming something, in which a picture or a sound is said to be of it: of those
# with a name, of others. A caption that begins so should go on with a name
NAMED_OPENED, OPENED = 0.6, 0.2


def is_held_out(caption: str) -> bool:
    """Whether a caption is kept for val: one in EVERY_VAL, however often it is there."""
    return int(sha256(caption.encode())[:8], 16) % EVERY_VAL == 0


def photo_names(data: Path) -> list[list[str]]:
    """Labelled photos → the words that stand for them, of each group of synsets, hypernyms left out: a caption should
    say what it is. Raises UsageError."""
    metas: dict[str, dict] = {}
    for path in find_shards(data, "images"):
        for sample in located(path):
            if sample.meta.get("words") and split_named(sample.meta.get("split", "train")) == "train":
                metas.setdefault(sample.meta["synset"], sample.meta)
    if not metas:
        raise UsageError(f"--data {data}: no labelled photos of the split train", hint="images-*.tar with `words`")
    wide = set(", ".join(HYPERNYMS).split(", "))
    groups = names_by_group(list(metas.values())).values()
    return [own for group in groups if (own := [name for name in group if name not in wide])]


class Corpus:
    """Draws sentences. names: of each group of things, each group as often as another; none: real captions alone."""

    def __init__(self, captions: Sequence[str], names: Sequence[Sequence[str]] = ()) -> None:
        self.names = names
        self.train = [caption for caption in captions if not is_held_out(caption)]
        self.val = [caption for caption in captions if is_held_out(caption)]
        self.frames = Frames(self.train, sorted(set(chain(*names)))).frames if names else []
        self.weights = _commonness(self.train, names)

    def draw(self, rng: random.Random) -> str:
        """A sentence for training."""
        if self.names and rng.random() < NAMED:
            return introduced(rng, self._named(rng), NAMED_OPENED)
        return introduced(rng, rng.choice(self.train), OPENED)

    def _named(self, rng: random.Random) -> str:
        group = rng.randrange(len(self.names))
        (name,) = rng.choices(self.names[group], self.weights[group])
        if not self.frames or rng.random() < PLAIN:
            return with_articles(rng.choice(OF_THINGS).format(name))
        return with_articles(filled(rng.choice(self.frames), name))

    def named(self, rng: random.Random, count: int) -> list[str]:
        """So many sentences about things; the same for the same generator."""
        return [self._named(rng) for _ in range(count)] if self.names else []


def _commonness(captions: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[float]]:
    """Of each name of each group how much likelier it is than one that no caption has: people say cow, not bovine. Its
    root, or the rarer ones would not be learned."""
    every = sorted(set(chain(*names)), key=len, reverse=True)
    found = re.compile(rf"\b(?:{'|'.join(map(re.escape, every))})\b")
    counts = Counter(name for caption in captions for name in found.findall(caption)) if every else Counter()
    return [[math.sqrt(1 + counts[name]) for name in own] for own in names]
