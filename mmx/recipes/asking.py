"""What spaces are asked, and how each question is answered: options that commands and requests share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Optional, get_origin, get_type_hints

from mmx.declared import Declared, Option, declaration, without_none
from mmx.options import Seed

Every = Annotated[
    float, Option("--every", min=0.05, metavar="s", help="Of videos: a frame and its sound each so often.")
]
MostTags = Annotated[int, Option("--top", min=1, help="Name at most so many.")]
Threshold = Annotated[float, Option(min=0.0, max=1.0, help="Name none of a smaller share.")]
MostHits = Annotated[int, Option("--top", min=1, help="Show at most so many.")]
Modality = Annotated[
    Optional[str], Option(show_default=False, help="Only of image, sound, text or array. Default: all.")
]
Exact = Annotated[bool, Option("--exact", help="Compare with every row, however large the index is.")]
Captions = Annotated[int, Option("-n", "--num", min=1, max=64, help="How many captions of each input.")]


@dataclass(frozen=True)
class Cutting:
    """How videos are cut."""

    every: Every = 2.0


@dataclass(frozen=True)
class Tagging:
    """labels: what is told apart; none are those that the space brings."""

    labels: Annotated[tuple[str, ...], Option(help="What to choose from: A,B,C. Default: what the space knows.")] = ()
    top: MostTags = 3
    threshold: Threshold = 0.0
    every: Every = 2.0


@dataclass(frozen=True)
class Searching:
    """index: a folder that mmx index made."""

    index: Annotated[str, Option(help="The folder that mmx index made.")] = ""
    top: MostHits = 10
    modality: Modality = None
    exact: Exact = False
    every: Every = 2.0


@dataclass(frozen=True)
class Locating:
    """What is drawn of a place."""

    heat: Annotated[bool, Option(help="Draw the picture under its heat, with the box.")] = False
    mask: Annotated[bool, Option(help="Draw the place in white on black.")] = False


@dataclass(frozen=True)
class Writing:
    """How a caption is written."""

    prefix: Annotated[
        Optional[str],
        Option(
            metavar="TEXT",
            show_default=False,
            help='What captions begin with. Default: "Image of a", of sounds "The sound of a".',
        ),
    ] = None
    steps: Annotated[
        Optional[int],
        Option(
            min=0,
            max=100,
            show_default=False,
            help="Gradient steps a token; 0 leaves the language model alone, and the space only chooses. With --fast "
            "the times a sentence is gone over. Default: 20; with --fast 3.",
        ),
    ] = None
    candidates: Annotated[
        int, Option(min=2, max=100_000, help="Of so many likely next tokens the space says how they fit.")
    ] = 512
    beam: Annotated[
        int, Option(min=1, max=64, help="Captions that are written side by side; the space chooses among them.")
    ] = 5
    fast: Annotated[
        bool, Option("--fast", help="Draw captions by Gibbs sampling instead, without gradients: rougher ones.")
    ] = False
    seed: Seed = 0


@dataclass(frozen=True)
class Captioning(Writing):
    """How captions are written, and how many."""

    num: Captions = 1
    every: Every = 2.0


@dataclass(frozen=True)
class Asking:
    """One of the options of a question. kind: int, float, bool, str or tuple (of texts); optional: or None."""

    name: str
    kind: type
    optional: bool
    default: Any
    ours: Declared


def options_of(options: type) -> Iterator[Asking]:
    """What a question may be told, as it is declared above."""
    hints = get_type_hints(options, include_extras=True)
    for option in fields(options):
        typed, ours = declaration(hints[option.name])
        kind, optional = without_none(typed)
        assert ours is not None
        yield Asking(option.name, get_origin(kind) or kind, optional, option.default, ours)


def filled(options: type, values: Mapping[str, Any]) -> Any:
    """Options from what another process sent. Raises ValueError, TypeError for what none of them may be."""
    known = {option.name: option for option in options_of(options)}
    if values.keys() != known.keys():
        raise ValueError("other options")
    return options(**{name: _fits(known[name], value) for name, value in values.items()})


def _fits(option: Asking, value: Any) -> Any:
    if value is None and option.optional:
        return None
    if option.kind is tuple:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise TypeError(f"{value!r} is no list of texts")
        return tuple(value)
    if type(value) is not option.kind and not (option.kind is float and type(value) is int):
        raise TypeError(f"{value!r} is no {option.kind.__name__}")
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text with a NUL")
        value.encode()
        return value
    low = -math.inf if option.ours.min is None else option.ours.min
    high = math.inf if option.ours.max is None else option.ours.max
    if not low <= value <= high:  # nor is NaN
        raise ValueError(f"{value} is out of bounds")
    return value
