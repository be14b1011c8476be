"""`mmx train-lm`: a causal language model of captions (GPT-2, Radford et al. 2019), in GPT-2's own format."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.captions import train_tokenizer
from mmx.data.language import Corpus, photo_names
from mmx.data.sentences import read_captions
from mmx.decoders.towers import TextReader
from mmx.device import device_of, pick_device
from mmx.digest import sha256, sha256_of_file
from mmx.guided.language import SIZES, save_language_model
from mmx.models.store import locate, seal
from mmx.nets.gpt import TiedLanguageModel
from mmx.options import FREE
from mmx.recipes.language import HEAD, LanguageOptions
from mmx.training.card import language_card
from mmx.training.engine.identity import recipe_identity
from mmx.training.engine.initial import take_fitting
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig

DROPOUT = 0.1
VAL = 1500  # sentences that are measured: so many captions, and so many about things
POOL = 8  # batches that are drawn at once
IGNORED = -100  # in place of a target


@dataclass(frozen=True)
class LanguageRecipe(LanguageOptions):
    """Everything `mmx train-lm` was asked for, and the line itself."""

    command: str = field(default="", metadata=FREE)

    @property
    def schedule(self) -> LoopConfig:
        """The loop's settings."""
        return LoopConfig(
            self.max_steps, self.batch_size, self.lr, warmup=min(200, self.max_steps // 10), weight_decay=0.05,
            betas=(0.9, 0.98), ema=0.99, seed=self.seed, device=pick_device(self.device), bf16=False,
            validate_steps=500, save_seconds=60,
        )  # fmt: skip


class LanguageTask:
    """The next token of every token of a sentence."""

    name = "lm"
    lower_is_better = ("perplexity", "perplexity_things", "bigram", "unigram")

    def __init__(self, corpus: Corpus, reader: TextReader, net: TiedLanguageModel) -> None:
        self.corpus, self.reader, self.module = corpus, reader, net
        rng = random.Random(0)
        captions = rng.sample(corpus.val, min(VAL, len(corpus.val)))
        self.val = {"perplexity": captions, "perplexity_things": corpus.named(rng, VAL)}

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
        ids, mask = self.reader([self.corpus.draw(rng) for _ in range(POOL * size)])
        # sentences of about one length: half of the work would be padding otherwise
        lengths, start = mask.sum(1), size * rng.randrange(POOL)
        rows = lengths.argsort(stable=True)[start : start + size]
        return _asked(ids[rows, : int(lengths[rows].max())], mask[rows, : int(lengths[rows].max())])

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        logits, _ = self.module(batch["ids"])
        return F.cross_entropy(logits.float().flatten(0, 1), batch["next"].flatten(), ignore_index=IGNORED), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        return {name: self._perplexity(module, sentences) for name, sentences in self.val.items() if sentences}

    def _perplexity(self, module: nn.Module, sentences: Sequence[str]) -> float:
        """Of a token of these sentences, the end of each among them."""
        total, count, device = 0.0, 0, device_of(module)
        for start in range(0, len(sentences), 100):
            read = _asked(*self.reader(sentences[start : start + 100]))
            batch = {name: value.to(device) for name, value in read.items()}
            logits, _ = module(batch["ids"])
            flat = logits.float().flatten(0, 1), batch["next"].flatten()
            total += float(F.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum"))
            count += int((batch["next"] != IGNORED).sum())
        return math.exp(total / count)

    def preview(self, module: nn.Module, path: Path) -> None:
        """Texts have nothing to show."""


def _asked(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Tokens (B, L) and which are no padding → those that are read, and those after them, none after the end."""
    return {"ids": ids[:, :-1], "next": ids[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORED)}


def counted(reader: TextReader, train: Sequence[str], val: Sequence[str]) -> dict[str, float]:
    """What counting gives: the perplexity of val by how often tokens, and pairs of them, are in the training captions.

    Unigrams with one more of each; bigrams drawn to these by absolute discounting (Ney et al. 1994).
    """
    rows = {name: [_tokens(reader, text) for text in texts] for name, texts in (("train", train), ("val", val))}
    ones = Counter(token for row in rows["train"] for token in row[1:])
    twos = Counter(pair for row in rows["train"] for pair in pairwise(row))
    before, kinds = Counter(pair[0] for pair in twos.elements()), Counter(pair[0] for pair in twos)
    total, vocabulary, less = sum(ones.values()), len(reader), 0.75
    logs = {"unigram": 0.0, "bigram": 0.0}
    pairs = [pair for row in rows["val"] for pair in pairwise(row)]
    for first, second in pairs:
        one = (ones[second] + 1) / (total + vocabulary)
        two = (max(twos[first, second] - less, 0) + less * kinds[first] * one) / before[first] if before[first] else one
        logs["unigram"] -= math.log(one)
        logs["bigram"] -= math.log(two)
    return {name: math.exp(value / len(pairs)) for name, value in logs.items()}


def _tokens(reader: TextReader, text: str) -> list[int]:
    return [token for token in reader.tokenizer.encode(text).ids if token]  # the padding is 0


def reader_of(recipe: LanguageOptions, captions: Sequence[str]) -> TextReader:
    """The vocabulary: of a space, of any folder, or learned from the captions. Raises ModelError."""
    if recipe.vocabulary is not None:
        return train_tokenizer(captions, recipe.vocabulary, length=recipe.length)
    folder = locate(recipe.tokenizer, "sound2img", "decoder").folder
    places = (folder, folder / "teacher" / "tokenizer", folder / "tokenizer")
    return TextReader.load(next((p for p in places if (p / "tokenizer.json").exists()), folder), recipe.length)


def train_language_model(recipe: LanguageRecipe) -> Path:
    """Trains and writes `run/lm`. The same recipe on the same run resumes. Raises what its parts raise."""
    sounds = read_captions(recipe.sounds) if recipe.sounds else []
    captions = read_captions(recipe.captions) + sounds
    things = [] if recipe.data is None else photo_names(recipe.data)
    reader, corpus = reader_of(recipe, captions), Corpus(captions, things, sounds)
    torch.manual_seed(recipe.seed)  # the initial weights
    sizes = {"width": recipe.width, "layers": recipe.layers, "heads": recipe.width // HEAD}
    net = TiedLanguageModel(len(reader), recipe.length, **sizes, dropout=DROPOUT)
    start = None if recipe.init is None else recipe.init / "model.safetensors"
    if start is not None:
        from safetensors.torch import load_file

        take_fitting(net, load_file(start))
    task = LanguageTask(corpus, reader, net)
    identity = recipe_identity(
        recipe,
        captions=sha256("\n".join(captions).encode()),
        sounds=sha256("\n".join(sounds).encode()),
        data=sha256(json.dumps([vars(thing) for thing in things]).encode()),
        tokenizer=sha256(reader.tokenizer.to_str().encode()),
        init=None if start is None else sha256_of_file(start),
    )
    deadline = time.monotonic() + 60 * recipe.minutes
    run = Run(task, recipe.schedule, recipe.run / "state", identity=identity, deadline=deadline)
    found = run.fit(quiet=recipe.quiet)
    trained = {"steps": run.step, "batch_size": recipe.batch_size}
    save_language_model(run.averaged().cpu(), reader, recipe.run / "lm")
    counts = counted(reader, corpus.train, task.val["perplexity"])
    about = {"captions": len(captions), "names": sum(len(thing.names) for thing in things)} | trained
    carded(recipe, net, about | {"val": found | counts})
    return recipe.run / "lm"


def carded(recipe: LanguageRecipe, net: TiedLanguageModel, measured: dict[str, Any]) -> None:
    """What was measured, the card, and the sums."""
    folder = recipe.run / "lm"
    sizes = {ours: net.sizes[theirs] for ours, theirs in SIZES.items()}
    own = {"command": recipe.command, "notes": recipe.notes, "seed": recipe.seed, "sizes": sizes} | measured
    (folder / "metrics.json").write_text(json.dumps(own, indent=1), encoding="utf8")
    (folder / "README.md").write_text(language_card(own), encoding="utf8")
    seal(folder)
