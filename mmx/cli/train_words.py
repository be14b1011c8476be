"""`mmx train-words`."""

from __future__ import annotations

import sys

from mmx.cli.takes import takes
from mmx.cli.train import Line
from mmx.recipes.words import WordOptions


@takes
def train_words(line: Line, options: WordOptions) -> None:
    """Train vectors of words, in which words that are used alike lie near each other → RUN/words.

    mmx train-words --captions captions.txt -o run

    Each word learns to foretell the words around it, and to tell them from words that are drawn (skip-gram with
    negative sampling). mmx show words king --words run/words shows what came out. The same command on the same run
    resumes; Ctrl-C saves.
    """
    options.check()
    from mmx.training.words import WordRecipe  # from here on it is slow: torch
    from mmx.training.words import train_words as train

    folder = train(WordRecipe(**vars(options), command=line.command))
    if not options.quiet:
        print(f"{folder}: mmx show words WORD... --words {folder}", file=sys.stderr)
