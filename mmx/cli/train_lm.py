"""`mmx train-lm`."""

from __future__ import annotations

import sys

from mmx.cli.takes import takes
from mmx.cli.train import Line
from mmx.recipes.language import LanguageOptions


@takes
def train_lm(line: Line, options: LanguageOptions) -> None:
    """Train a language model that captions are written with → RUN/lm.

    mmx train-lm --captions captions.txt -o run

    The folder is one of the transformers library's GPT2LMHeadModel; --lm takes it. The same command on the same run
    resumes; Ctrl-C saves.
    """
    options.check()
    from mmx.training.language import LanguageRecipe, train_language_model  # from here on it is slow: torch

    folder = train_language_model(LanguageRecipe(**vars(options), command=line.command))
    if not options.quiet:
        print(f"{folder}: use it with mmx caption --lm", file=sys.stderr)
