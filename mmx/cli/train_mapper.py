"""`mmx train-mapper`."""

from __future__ import annotations

import sys
from dataclasses import replace

from mmx.cli.edit import IMAGES, about_a_face
from mmx.cli.takes import takes
from mmx.cli.train import Line
from mmx.errors import UsageError
from mmx.models.store import missing
from mmx.recipes.mapper import MapperOptions


@takes
def train_mapper(line: Line, options: MapperOptions) -> None:
    """Train one text's edit of any picture, so that it takes no steps any more → RUN/mapper.

    mmx train-mapper "an old man" --data DIR -o run

    mmx edit face.png --mapper run/mapper -o old.png

    A small network learns what to add to what drives the frozen decoder, by the terms of mmx edit over many pictures.
    It belongs to the space of that decoder. The same command on the same run resumes; Ctrl-C saves.
    """
    options.check()
    for option, name in (("--decoder", options.decoder), ("--space", options.encoder)):
        if missing(name):
            raise UsageError(f"{option} {missing(name)}: no such model folder")
    if options.decoder is None and not about_a_face(options.text):
        options = replace(options, decoder=IMAGES)
    from mmx.training.mapper import MapperRecipe, train_mapper  # from here on it is slow: torch and the models

    folder = train_mapper(MapperRecipe(**vars(options), command=line.command))
    if not options.quiet:
        print(f"{folder}: use it with mmx edit --mapper", file=sys.stderr)
