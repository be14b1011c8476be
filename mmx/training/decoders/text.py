"""A text tower, trained against a frozen image tower: sentences go where the photos are that they are said of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.looks import LOOKS
from mmx.data.photos import Photos
from mmx.data.sentences import Sentence, Sentences
from mmx.decoders.towers import TextReader
from mmx.device import device_of
from mmx.training.decoders.text_measures import measure
from mmx.training.decoders.text_targets import Targets

LOOKED = 4.0  # how much more a sentence with a look counts: all that it says moves the target but little
OFTEN = 50  # how often a name is among what subwords are learned from, so that it is one: words are guided as a whole
CUT = 0.4  # share of sentences that are cut off: captions are guided word by word, so beginnings are read, too
EARLY = 0.2  # share of these, of a thing, that are cut before its name
AWAY = 0.3  # what is about other things comes no nearer to anything than this cosine


class TextTask:
    """Regression of sentences to the means of the photos that they are said of; what is said of none is held away from
    all of them (outlier exposure, Hendrycks et al. 2019).

    embeds: the frozen image tower's, of `photos` (N, 2, D) and of `val` (M, 2, D), of any norm.
    """

    name = "text"
    lower_is_better = ("dog_green_dog",)

    def __init__(
        self,
        photos: Photos,
        val: Photos,
        embeds: tuple[Tensor, Tensor],
        captions: Sequence[str],
        fresh: Callable[[Sequence[str]], tuple[TextReader, nn.Module]],
    ) -> None:
        self.val, self.val_embeds = val, F.normalize(embeds[1][:, 0].float(), dim=1)
        self.targets = Targets(photos, F.normalize(embeds[0].float(), dim=2))
        self.points, self.things = self.targets.horizon().points, len(self.targets.things)
        self.sentences = Sentences(captions, self.targets.names)
        self.reader, self.module = fresh(vocabulary_of(captions, self.targets.names))

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
        drawn = [self.sentences.draw(rng) for _ in range(size)]
        ids, mask = self.reader([sentence.text for sentence in drawn])
        drawn = [self._cut(rng, *given) for given in zip(drawn, ids, mask, strict=True)]
        ids, mask = ids[:, : int(mask.sum(1).max())], mask[:, : int(mask.sum(1).max())]
        targets = [self.targets.points[sentence.group, sentence.look] for sentence in drawn]
        weights = torch.tensor([0 if s.group < 0 else LOOKED if s.look >= 0 else 1.0 for s in drawn])
        return {"ids": ids, "mask": mask, "targets": torch.stack(targets), "weights": weights, "points": self.points}

    def _cut(self, rng: random.Random, sentence: Sentence, ids: Tensor, mask: Tensor) -> Sentence:
        """At times cuts a sentence off, in its ids and mask (L,) themselves: what is left says what the whole did where
        some of the name is left, else nothing. One with a look is left whole."""
        length = int(mask.sum()) - 2  # tokens between the start and the end
        if sentence.look >= 0 or length < 2 or rng.random() >= CUT:
            return sentence
        before = self.reader.begun(sentence.text, sentence.named)
        early = 0 < before < length and sentence.group >= 0 and rng.random() < EARLY
        kept = rng.randint(1, before) if early else rng.randint(min(before + 1, length), length)
        ids[kept + 1], ids[kept + 2 :], mask[kept + 2 :] = len(self.reader) - 1, 0, 0
        return replace(sentence, group=self.things) if early else sentence

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        texts = F.normalize(self.module(batch["ids"], batch["mask"]).float(), dim=1)
        weights, count = batch["weights"], len(texts)
        off = ((1 - (texts * batch["targets"]).sum(1)) * weights).sum() / count
        near = (F.relu((texts @ batch["points"].T).amax(1) - AWAY) * (weights == 0)).sum() / count
        return off + near, {"off": off.item(), "near": near.item()}

    def embed(self, module: nn.Module) -> Callable[[Sequence[str]], Tensor]:
        """Texts → unit vectors (B, D) on the CPU, by a tower."""

        @torch.no_grad()
        def embed(texts: Sequence[str]) -> Tensor:
            ids, mask = (part.to(device_of(module)) for part in self.reader(texts))
            return F.normalize(module(ids, mask).float(), dim=1).cpu()

        return embed

    def validate(self, module: nn.Module) -> dict[str, float]:
        return measure(self.embed(module), self.val, self.val_embeds, self.targets, self.sentences)

    def preview(self, module: nn.Module, path: Path) -> None:
        """Texts have nothing to show."""


def vocabulary_of(captions: Sequence[str], names: Sequence[Sequence[str]]) -> list[str]:
    """What the subwords are learned from: the captions, and names and looks often enough to be words of their own."""
    words = sorted({word for own in names for word in own} | set(LOOKS))
    return [*captions, *(f"a photo of a {word}" for word in words for _ in range(OFTEN))]
