"""How good captions of labelled photos and sounds are: whether they name the right thing, and whether they are English.

Labels are the data's own. What names a thing are its WordNet lemmas and everyday words for it; hypernyms don't count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mmx.data.captions import words_of
from mmx.data.items import split_named
from mmx.data.shards import find_shards, stream
from mmx.data.things import EVERYDAY, keys_of, plural
from mmx.guided.caption import Guidance
from mmx.guided.captioner import Captioner
from mmx.spaces.parts import parts_of

PREFIXES = {"image": "images", "sound": "sounds"}


@dataclass(frozen=True)
class Labelled:
    """One photo or sound of val: its direction in the space (D,), and what it is of."""

    target: Tensor
    concept: str | None
    synset: str | None


class Nouns:
    """What things are called. by: "concept" or "synset" → name of the thing → its words."""

    def __init__(self, metas: Sequence[dict[str, Any]]) -> None:
        self.by: dict[str, dict[str, set[str]]] = {"concept": {}, "synset": {}}
        for meta in metas:
            words = {*words_of(meta), *keys_of(meta)}
            words |= {word for key in keys_of(meta) for word in EVERYDAY.get(key, "").split(", ") if word}
            self.by["synset"].setdefault(meta["synset"], set()).update(words)
            if meta.get("concept"):
                self.by["concept"].setdefault(meta["concept"], set()).update(words)
        every = {word for things in self.by.values() for words in things.values() for word in words}
        forms = {form: word for word in every for form in (plural(word), word)}
        self._word = forms
        self._any = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(forms, key=len, reverse=True)))})\b")

    def first(self, text: str) -> str | None:
        """The first word of a text that names a thing."""
        found = self._any.search(text.lower())
        return None if found is None else self._word[found[0]]

    def names(self, text: str, by: str, thing: str) -> bool:
        """Whether the first thing that a text names is this."""
        return self.first(text) in self.by[by].get(thing, ())


def photo_metas(data: Path) -> list[dict[str, Any]]:
    """One photo's metadata of each synset. Raises InputError."""
    metas: dict[str, dict] = {}
    for path in find_shards(data, PREFIXES["image"]):
        for sample in stream(path):
            if sample.meta.get("words"):
                metas.setdefault(sample.meta["synset"], sample.meta)
    return list(metas.values())


def labelled(captioner: Captioner, data: Path, modality: str, split: str, limit: int) -> Iterator[Labelled]:
    """At most `limit` media of each label (synset of photos, concept of sounds) of a split."""
    counts: dict[str, int] = {}
    key = {"image": "synset", "sound": "concept"}[modality]
    for path in find_shards(data, PREFIXES[modality]):
        for sample in stream(path):
            label, payload = sample.meta.get(key), sample.of(modality)
            if not label or payload is None or split_named(sample.meta.get("split", "train")) != split_named(split):
                continue
            counts[label] = counts.get(label, 0) + 1
            if counts[label] <= limit:
                name = f"{sample.key}.{'png' if modality == 'image' else 'wav'}"
                parts = list(parts_of(captioner.space, payload, name))
                target = captioner.compass.direction(parts)
                yield Labelled(target, sample.meta.get("concept"), sample.meta.get("synset"))


def ways(guidance: Guidance) -> dict[str, tuple[Guidance, bool]]:
    """Row → the guidance, and whether the space chooses among the beams; without it the likeliest is taken."""
    return {
        "guided": (guidance, True),
        "unguided": (replace(guidance, steps=0), False),
        "chosen by the space alone (0 steps)": (replace(guidance, steps=0), True),
        "1 step": (replace(guidance, steps=1), True),
        "guided, the likeliest beam": (guidance, False),
        "without the space's term": (replace(guidance, closeness=0.0), False),
        "without the divergence": (replace(guidance, fluency=0.0), True),
        "with the paper's numbers": (replace(guidance, rate=0.3, plausible=0.0, gain=0.0, temperature=0.01), True),
    }


def shares(captions: Sequence[str], media: Sequence[Labelled], nouns: Nouns) -> dict[str, float]:
    """noun: of those with a synset, how many captions name it first; concept: of those with a concept."""
    found = {}
    for column, by in (("noun of 60", "synset"), ("concept of 21", "concept")):
        pairs = [(text, getattr(own, by)) for text, own in zip(captions, media, strict=True) if getattr(own, by)]
        if pairs:
            found[column] = sum(nouns.names(text, by, thing) for text, thing in pairs) / len(pairs)
    return found


def distinct(captions: Sequence[str], size: int) -> float:
    """Of all runs of `size` words, the share that differ (distinct-n, Li et al. 2016)."""
    runs = [tuple(words[k : k + size]) for words in map(str.split, captions) for k in range(len(words) - size + 1)]
    return len(set(runs)) / max(1, len(runs))
