"""A language model and a text tower in a few hundred kilobytes, of one vocabulary, with random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from mmx.data.captions import train_tokenizer
from mmx.decoders.teacher import Teacher
from mmx.decoders.towers import TextReader, fresh_text_tower
from mmx.nets.gpt import TiedLanguageModel

WORDS = [
    f"{first} {thing} on {last}" for first in ("red", "green", "blue") for thing in ("car", "dog") for last in "ab"
]
LENGTH = 40


@cache
def _tokenizer() -> str:
    return train_tokenizer(WORDS * 6, 330, length=LENGTH).tokenizer.to_str()


def small_reader() -> TextReader:
    """Its end has the highest id."""
    from tokenizers import Tokenizer

    return TextReader(Tokenizer.from_str(_tokenizer()), LENGTH)


def small_reads() -> Teacher:
    """A teacher that reads texts of that vocabulary."""
    from mmx.nets.dual import DualEncoder
    from mmx.nets.towers import ResNet

    torch.manual_seed(3)
    tower = fresh_text_tower(
        vocabulary=len(small_reader()), width=16, inner=32, layers=2, heads=2, dim=12, length=LENGTH
    )
    for weights in tower.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    return Teacher(DualEncoder(ResNet((8, 8), (1, 1)), tower, image_size=32), small_reader())


def small_lm(folder: Path, seed: int = 0) -> Path:
    """A language model's folder, as mmx train-lm writes it."""
    from mmx.guided.language import save_language_model

    torch.manual_seed(seed)
    net = TiedLanguageModel(len(small_reader()), LENGTH, 32, 2, heads=2)
    for name, weights in net.named_parameters():
        if name.endswith("weight") and weights.dim() == 2:
            torch.nn.init.normal_(weights, std=0.15)
    save_language_model(net, small_reader(), folder)
    return folder
