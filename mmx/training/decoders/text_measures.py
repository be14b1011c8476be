"""What a text tower understands, measured on photos and sentences of val."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.data.looks import COLOURS, LOOKS
from mmx.data.photos import Photos
from mmx.data.sentences import Sentences
from mmx.data.things import EVERYDAY
from mmx.training.decoders.text_targets import Targets

# none of them is a sentence of the training
FRAMES = {
    "photo": "a photo of a {}",
    "snow": "the {} is running through the snow",
    "people": "two people looking at a {}",
    "old": "a black and white picture of an old {} outside",
}
FOUND = 20  # photos that a colour finds
HELD_OUT = 600  # sentences of val

Embed = Callable[[Sequence[str]], Tensor]


def measure(embed: Embed, val: Photos, embeds: Tensor, targets: Targets, sentences: Sentences) -> dict[str, float]:
    """embed: texts → unit vectors (B, D). embeds: of val's photos, unit vectors (N, D).

    frame_*: the share of photos whose concept is named among all. synonyms: the mean over everyday words, each in its
    concept's place. colour_*: how far from a colour the mean colours of the photos lie that "a {colour} picture" finds,
    in standard deviations; beside photos at random, and the best there are. far_*: the share of sentences called far.
    """
    concepts = sorted({meta["concept"] for meta in val.meta if meta.get("concept")})
    found: dict[str, float] = {}
    if concepts:
        truth = torch.tensor([concepts.index(meta["concept"]) if meta.get("concept") else -1 for meta in val.meta])
        photos, truth = embeds[truth >= 0], truth[truth >= 0]
        for name, frame in FRAMES.items():
            texts = embed([frame.format(concept) for concept in concepts])
            found[f"frame_{name}"] = ((photos @ texts.T).argmax(1) == truth).float().mean().item()
        found |= named_by_synonyms(embed, photos, truth, concepts)
    found |= colours_found(embed, val, embeds, targets)
    pair = embed(["a dog", "a green dog"])
    found["dog_green_dog"] = float(pair[0] @ pair[1])
    return found | far_shares(embed, targets, sentences)


def synonym_hits(embed: Embed, photos: Tensor, truth: Tensor, concepts: Sequence[str]) -> dict[str, float]:
    """Everyday word → the share of its concept's photos that are named by it, among the other concepts' own names."""
    own = embed([FRAMES["photo"].format(concept) for concept in concepts])
    shares = {}
    for number, concept in enumerate(concepts):
        for word in EVERYDAY.get(concept, "").split(", ") if concept in EVERYDAY else ():
            texts = own.clone()
            texts[number] = embed([FRAMES["photo"].format(word)])[0]
            shares[word] = ((photos[truth == number] @ texts.T).argmax(1) == number).float().mean().item()
    return shares


def named_by_synonyms(embed: Embed, photos: Tensor, truth: Tensor, concepts: Sequence[str]) -> dict[str, float]:
    """The mean of `synonym_hits`, and three of them."""
    shares = synonym_hits(embed, photos, truth, concepts)
    if not shares:
        return {}
    chosen = {f"synonym_{word}": shares[word] for word in ("puppy", "kitten", "waves") if word in shares}
    return {"synonyms": sum(shares.values()) / len(shares)} | chosen


def colours_found(embed: Embed, val: Photos, embeds: Tensor, targets: Targets) -> dict[str, float]:
    """Mean distance between a colour and the photos that its word finds, random photos, and the nearest photos."""
    wanted = torch.tensor(list(COLOURS.values()))
    away = torch.cdist(targets.looks.standard(val.pixels)[:, :3], wanted)  # (N, colours)
    texts = embed([f"a {colour} picture" for colour in COLOURS])
    best = (embeds @ texts.T).topk(min(FOUND, len(val)), dim=0).indices
    oracle = away.topk(min(FOUND, len(val)), dim=0, largest=False).values
    return {
        "colour_found": away.gather(0, best).mean().item(),
        "colour_random": away.mean().item(),
        "colour_best": oracle.mean().item(),
    }


def known_and_other(sentences: Sentences) -> tuple[list[str], list[str]]:
    """Sentences of val: about the photos' things, looks, and things of a look; and about others."""
    about, other = sentences.held_out(random.Random(0), HELD_OUT)
    looks = [f"a {look} {thing}" for look in LOOKS for thing in ("picture", *(own[0] for own in sentences.names[:20]))]
    return about + looks, other


def calibrated(embed: Embed, targets: Targets, sentences: Sentences) -> float:
    """The cosine to the nearest point that tells most of val's sentences about things from those about others."""
    known, other = (targets.horizon().nearest(embed(texts)) for texts in known_and_other(sentences))
    levels = torch.linspace(0, 1, 101)
    wrong = torch.stack([(known < level).float().mean() + (other >= level).float().mean() for level in levels])
    return levels[wrong == wrong.min()].mean().item()


def far_shares(embed: Embed, targets: Targets, sentences: Sentences) -> dict[str, float]:
    """How many of val's sentences are called far: of those about things, and of those about others."""
    horizon = targets.horizon(calibrated(embed, targets, sentences))
    shares = [sum(horizon.is_far(embed(texts))) / len(texts) for texts in known_and_other(sentences)]
    return {"far_known": shares[0], "far_other": shares[1]}


def temperature(photos: Tensor, texts: Tensor, truth: Tensor) -> float:
    """The inverse temperature at which unit vectors of photos (N, D) name their texts (K, D) likeliest."""
    scales = torch.logspace(0, math.log10(100), 60)
    losses = [F.cross_entropy(scale * photos @ texts.T, truth) for scale in scales]
    return float(scales[torch.stack(losses).argmin()])
