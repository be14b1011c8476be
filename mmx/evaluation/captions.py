"""How good captions of labelled photos and sounds are: whether they name the right thing, and whether they are English.

Labels are the data's own. What names a thing are its WordNet lemmas and everyday words for it; hypernyms don't count.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmx.data.items import split_named
from mmx.data.sentences import with_articles
from mmx.data.shards import find_shards, located, stream
from mmx.data.things import names_by_group, plural
from mmx.errors import UsageError
from mmx.evaluation.report import Report, Table
from mmx.guided.asked import OPENINGS
from mmx.guided.caption import Guidance
from mmx.guided.captioner import Caption, Captioner
from mmx.guided.gibbs import SWEEPS
from mmx.guided.language import RATE, LanguageModel
from mmx.spaces.base import Space
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
        of = {meta["concept"]: set() for meta in metas if meta.get("concept")}
        for meta in metas:
            of.get(meta.get("concept"), set()).add(meta["synset"])
        self.by: dict[str, dict[str, set[str]]] = {
            "concept": {name: set() for name in of},
            "synset": {meta["synset"]: set() for meta in metas},
        }
        for synsets, words in names_by_group(metas).items():
            if len(synsets) == 1:
                self.by["synset"][next(iter(synsets))].update(words)
            for name in (name for name, own in of.items() if synsets <= own):
                self.by["concept"][name].update(words)
        every = {word for things in self.by.values() for words in things.values() for word in words}
        self._word = {form: word for word in sorted(every) for form in (plural(word), word)}
        longest_first = sorted(self._word, key=len, reverse=True)
        self._any = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")

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
        for sample in located(path):
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


@dataclass(frozen=True)
class Row:
    """A way to write captions. chosen: the space chooses among the beams; else the likeliest is taken."""

    guidance: Guidance
    chosen: bool = True
    fast: bool = False


def ways(guidance: Guidance) -> dict[str, Row]:
    """The rows that all media are measured by."""
    return {
        "guided": Row(guidance),
        "--fast": Row(replace(guidance, steps=SWEEPS), fast=True),
        "0 steps: the space only chooses": Row(replace(guidance, steps=0)),
        "unguided": Row(replace(guidance, steps=0), chosen=False),
    }


def ablations(guidance: Guidance) -> dict[str, Row]:
    """The rows that some photos are measured by."""
    return {
        "guided": Row(guidance),
        "1 step": Row(replace(guidance, steps=1)),
        "without the space's term, the likeliest": Row(replace(guidance, closeness=0.0), chosen=False),
        "without the divergence": Row(replace(guidance, fluency=0.0)),
        "without our bounds": Row(replace(guidance, plausible=0.0, within=0.0, gain=0.0)),
        "steps of 0.3, as for GPT-2": Row(replace(guidance, rate=RATE)),
    }


def shares(captions: Sequence[str], media: Sequence[Labelled], nouns: Nouns) -> dict[str, float]:
    """noun: of those with a synset, how many captions name it first; concept: of those with a concept."""
    found = {}
    for column, by in (("noun of 60", "synset"), ("concept of 21", "concept")):
        pairs = [(text, getattr(own, by)) for text, own in zip(captions, media, strict=True) if getattr(own, by)]
        if pairs:
            found[column] = sum(nouns.names(text, by, thing) for text, thing in pairs) / len(pairs)
    return found


def english(captions: Sequence[Caption]) -> dict[str, float]:
    """perplexity: by the unshifted language model, the geometric mean over captions; distinct-1 and -2."""
    texts = [caption.text for caption in captions]
    perplexity = math.exp(sum(math.log(caption.perplexity) for caption in captions) / max(1, len(captions)))
    return {"perplexity": perplexity, "distinct-1": distinct(texts, 1), "distinct-2": distinct(texts, 2)}


def distinct(captions: Sequence[str], size: int) -> float:
    """Of all runs of `size` words, the share that differ (distinct-n, Li et al. 2016)."""
    runs = [tuple(words[k : k + size]) for words in map(str.split, captions) for k in range(len(words) - size + 1)]
    return len(set(runs)) / max(1, len(runs))


class Protocol:
    """A space and a language model, and the media that they are measured on."""

    def __init__(self, space: Space, lm: LanguageModel, data: Path, guidance: Guidance, *, quiet: bool = False) -> None:
        self.space, self.lm, self.data, self.guidance, self.quiet = space, lm, data, guidance, quiet
        self.nouns = Nouns(photo_metas(data))

    def written(self, media: Sequence[Labelled], prefix: str, row: Row) -> list[Caption]:
        """A caption of each, BATCH side by side."""
        captioner = Captioner(self.space, self.lm, row.guidance, fast=row.fast)
        found: list[Caption] = []
        for start in range(0, len(media), BATCH):
            targets = torch.stack([own.target for own in media[start : start + BATCH]])
            for captions in captioner.captions(targets, prefix, row.guidance.beam):
                found.append(captions[0] if row.chosen else min(captions, key=lambda caption: caption.perplexity))
        return found

    def measured(self, media: Sequence[Labelled], captions: Sequence[Caption]) -> dict[str, float]:
        """The columns of a row of its own captions."""
        return shares([caption.text for caption in captions], media, self.nouns) | english(captions)

    def table(self, media: Sequence[Labelled], prefix: str, rows: dict[str, Row]) -> tuple[Table, list[Caption]]:
        """A row for each way, and the first row's captions."""
        table, first = {}, []
        for name, row in rows.items():
            captions = self.written(media, prefix, row)
            first = first or captions
            table[name] = self.measured(media, captions)
            if not self.quiet:
                print(f"{name}: {table[name]}", file=sys.stderr)
        return table, first

    def bounds(self, media: Sequence[Labelled], prefix: str, captions: Sequence[Caption]) -> Table:
        """What naming the thing gives, and what the caption of another medium gives."""
        named = [with_articles(f"{prefix} {own.concept or sorted(self._words(own))[0]}") for own in media]
        ids = len(self.lm.encode(prefix))
        rows = [[*self.lm.encode(text), self.lm.end] for text in named]
        likely = [self.lm.log_likelihood([row], ids)[0] / (len(row) - ids) for row in rows]
        true = [Caption(text, 0.0, math.exp(-own)) for text, own in zip(named, likely, strict=True)]
        half = len(captions) // 2
        others = [*captions[half:], *captions[:half]]
        return {
            "true: the label in a frame": self.measured(media, true),
            "random: another medium's caption": self.measured(media, others),
        }

    def _words(self, own: Labelled) -> set[str]:
        return self.nouns.by["synset"].get(own.synset or "", {""})


BATCH = 8
LIMITS = {"image": 2, "sound": 5}  # of each synset and of each concept
THIRD = 2  # every so many photos are measured by the ablations


def measure(protocol: Protocol, split: str, limit: int | None = None) -> Report:
    """Photos and sounds of a split by all ways, and some photos by the ablations."""
    captioner = Captioner(protocol.space, protocol.lm, protocol.guidance)
    tables: dict[str, Table] = {}
    about: dict[str, Any] = {}
    for modality in (m for m in PREFIXES if m in protocol.space.modalities):
        prefix = OPENINGS[modality].lower()
        media = list(labelled(captioner, protocol.data, modality, split, limit or LIMITS[modality]))
        if not media:
            continue
        table, captions = protocol.table(media, prefix, ways(protocol.guidance))
        tables[f"{modality}s"] = table | protocol.bounds(media, prefix, captions)
        about[f"{modality}s_measured"] = len(media)
        if modality == "image":
            some = media[::THIRD]
            tables["ablations"], _ = protocol.table(some, prefix, ablations(protocol.guidance))
            about["ablations_measured"] = len(some)
    if not tables:
        raise UsageError(f"{protocol.data}: nothing labelled of the split {split}")
    return Report(tables, about=about)
