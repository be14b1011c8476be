"""`mmx train-words`: vectors of words by skip-gram with negative sampling (Mikolov et al. 2013)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmx.data.analogies import questions
from mmx.data.language import is_held_out
from mmx.data.sentences import read_captions
from mmx.data.windows import Windows, vocabulary
from mmx.device import device_of, pick_device
from mmx.digest import sha256
from mmx.errors import InputError
from mmx.models.store import seal
from mmx.models.words import CONFIG, FORMAT, VECTORS, WordVectors
from mmx.nets.words import SkipGram, negative_sampling_loss
from mmx.options import FREE
from mmx.recipes.words import WordOptions
from mmx.training.card import tables
from mmx.training.engine.identity import recipe_identity
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig

VAL_PAIRS = 20_000
SHOWN = ("dog", "kitten", "man", "guitar", "train", "rain", "pizza", "surfboard", "laughing", "red")  # in the card


@dataclass(frozen=True)
class WordRecipe(WordOptions):
    """Everything `mmx train-words` was asked for, and the line itself."""

    command: str = field(default="", metadata=FREE)

    @property
    def schedule(self) -> LoopConfig:
        """The loop's settings."""
        return LoopConfig(
            self.max_steps, self.batch_size, self.lr, warmup=min(200, self.max_steps // 10), weight_decay=0.0,
            betas=(0.9, 0.98), ema=0.99, seed=self.seed, device=pick_device(self.device), bf16=False,
            validate_steps=1000, save_seconds=60,
        )  # fmt: skip


class WordTask:
    """Which words lie around a word, told from words that are drawn."""

    name = "words"
    lower_is_better = ("loss",)

    def __init__(
        self, counts: Mapping[str, int], train: Windows, val: Windows | None, net: SkipGram, *, negatives: int
    ) -> None:
        self.words, self.train, self.module, self.count = list(counts), train, net, negatives
        self.val = None if val is None else self._drawn(val, VAL_PAIRS, torch.Generator().manual_seed(0))

    def _drawn(self, windows: Windows, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        targets, contexts = windows.pairs(size, generator)
        drawn = self.train.negatives(size, self.count, generator)
        return {"targets": targets, "others": torch.cat((contexts[:, None], drawn), 1)}

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self._drawn(self.train, size, generator)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return negative_sampling_loss(self.module(batch["targets"], batch["others"])), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        assert isinstance(module, SkipGram)
        table = analogies(WordVectors.of(self.words, module.target.weight.detach().cpu().numpy()))
        found = {"analogies": table["all"]["top1"]} if table else {}
        if self.val is not None:
            own = {name: value.to(device_of(module)) for name, value in self.val.items()}
            found["loss"] = float(negative_sampling_loss(module(own["targets"], own["others"])))
        return found

    def preview(self, module: nn.Module, path: Path) -> None:
        """Words have nothing to show."""


def analogies(vectors: WordVectors) -> dict[str, dict[str, float]]:
    """How many of the questions "a is to b as c is to what?" the word nearest to b - a + c answers, of each relation
    and, where each relation counts as much as another, of all.

    top1, top5: the answer is the nearest, or among the five nearest, of all words but the three. third: it is the one
    nearest to c alone; random: the nearest where words have each other's vectors.
    """
    numbers = {word: number for number, word in enumerate(vectors.words)}
    shuffled = np.random.default_rng(0).permutation(vectors.table)
    rows = {}
    for name, own in questions(numbers).items():
        if not own:
            continue
        asked = np.array([[numbers[word] for word in question] for question in own])
        ranks = _ranks(vectors.table, asked, (-1, 1, 1))
        alone, random = _ranks(vectors.table, asked, (0, 0, 1)), _ranks(shuffled, asked, (-1, 1, 1))
        rows[name] = {"top1": float((ranks < 1).mean()), "top5": float((ranks < 5).mean())}
        rows[name] |= {"third": float((alone < 1).mean()), "random": float((random < 1).mean()), "count": len(own)}
    if rows:
        whole = {k: float(np.mean([row[k] for row in rows.values()])) for k in ("top1", "top5", "third", "random")}
        rows["all"] = whole | {"count": sum(row["count"] for row in rows.values())}
    return rows


def _ranks(table: np.ndarray, asked: np.ndarray, signs: Sequence[int]) -> np.ndarray:
    """Questions (Q, 4) → how many words but the three given are nearer to their weighted sum than the answer (Q,)."""
    points = sum(sign * table[asked[:, k]] for k, sign in enumerate(signs))
    cosines = points @ table.T
    np.put_along_axis(cosines, asked[:, :3], -np.inf, axis=1)
    return (cosines > np.take_along_axis(cosines, asked[:, 3:], axis=1)).sum(1)


def train_words(recipe: WordRecipe) -> Path:
    """Trains and writes `run/words`. The same recipe on the same run resumes. Raises what its parts raise."""
    captions = read_captions(recipe.captions)
    train = [caption for caption in captions if not is_held_out(caption)]
    counts = vocabulary(train, recipe.min_count)
    if len(counts) < 2:
        raise InputError(
            f"fewer than two words are there {recipe.min_count} times or more", hint="more captions, or --min-count"
        )
    windows = {"window": recipe.window, "often": recipe.often}
    held = [caption for caption in captions if is_held_out(caption)]
    own, val = Windows(train, counts, **windows), Windows(held, counts, **windows) if len(held) > 1 else None
    torch.manual_seed(recipe.seed)  # the initial weights
    task = WordTask(counts, own, val, SkipGram(len(counts), recipe.dim), negatives=recipe.negatives)
    identity = recipe_identity(recipe, captions=sha256("\n".join(captions).encode()))
    deadline = time.monotonic() + 60 * recipe.minutes
    run = Run(task, recipe.schedule, recipe.run / "state", identity=identity, deadline=deadline)
    found = run.fit(quiet=recipe.quiet)
    net = run.averaged().cpu()
    assert isinstance(net, SkipGram)
    about = {"captions": len(captions), "steps": run.step, "val": found}
    return _written(recipe, counts, net.target.weight.detach().numpy(), about)


def _written(recipe: WordRecipe, counts: Mapping[str, int], vectors: np.ndarray, about: dict[str, Any]) -> Path:
    """The folder: vectors in float16, their words, what was measured of them as they are on disk, the card."""
    from safetensors.numpy import save_file

    folder = recipe.run / "words"
    folder.mkdir(parents=True, exist_ok=True)
    half = vectors.astype(np.float16)
    save_file({"vectors": half}, folder / VECTORS)
    config = {"format": FORMAT, "dim": recipe.dim, "words": list(counts)}
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf8")
    kept = WordVectors.of(list(counts), half.astype(np.float32))
    own = {"command": recipe.command, "notes": recipe.notes, "seed": recipe.seed, "batch_size": recipe.batch_size}
    own |= {"window": recipe.window, "negatives": recipe.negatives, "dim": recipe.dim, "words": len(counts)} | about
    own["nearest"] = {w: [n for n, _ in kept.nearest(kept.point_of(w), 5, [w])] for w in SHOWN if w in counts}
    own["evaluation"] = {"task": "words", "split": "own list", "analogies": analogies(kept)}
    (folder / "metrics.json").write_text(json.dumps(own, indent=1), encoding="utf8")
    (folder / "README.md").write_text(card(own), encoding="utf8")
    seal(folder)
    return folder


def card(measured: Mapping[str, Any]) -> str:
    """README.md of a folder of word vectors."""
    near = "".join(f"| {word} | {', '.join(others)} |\n" for word, others in measured["nearest"].items())
    notes = f"\n## Data, licence, limits\n\n{measured['notes']}\n" if measured["notes"] else ""
    return f"""---
library_name: mmx
tags: [mmx, word2vec, skip-gram]
---
# Vectors of words

{measured["words"]} words, {measured["dim"]} numbers each, by skip-gram with {measured["negatives"]} negatives and a
window of {measured["window"]} words on either side, from {measured["captions"]} captions: {measured["steps"]} steps of
{measured["batch_size"]} pairs, seed {measured["seed"]}, with:

    {measured["command"]}

Loss on captions that no training had: {measured["val"].get("loss", float("nan")):.4g}.

| word | nearest |
|---|---|
{near}
## Analogies

"a is to b as c is to what?", of any two pairs of a relation (mmx/data/analogies.py). `top1`, `top5`: the answer is the
word nearest to b - a + c, or among the five nearest, of all but the three. `third`: it is the one nearest to c, which
takes no analogy. `random`: words have each other's vectors. `all`: the mean of the relations.
{tables(measured["evaluation"])}{notes}"""
