"""`mmx sound2img`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated

from mmx.cli.preview import Showing
from mmx.cli.takes import takes
from mmx.cli.translate import Extra, Request, Strictness, carry_out
from mmx.declared import Option
from mmx.errors import UsageError
from mmx.media.files import given_file
from mmx.media.stores import expand
from mmx.network import Spread
from mmx.options import Blending, Excerpt, Files, Models, Pictures, Placement, Settings, SizedSampling
from mmx.spaces.query import parse_query


@dataclass(frozen=True)
class Arithmetic:
    """What is added to a sound's meaning, and taken off it."""

    plus: Annotated[
        list[str],
        Option(
            "--plus",
            metavar="QUERY",
            show_default=False,
            help="Add what a text, a picture or a sound means, or a sum of them: sunset, 0.5*fog.jpg.",
        ),
    ] = field(default_factory=list)
    minus: Annotated[
        list[str], Option("--minus", metavar="QUERY", show_default=False, help="Take it off, likewise.")
    ] = field(default_factory=list)

    def extras(self) -> list[Extra]:
        """The terms as inputs. Raises UsageError for what can't be read as a query."""
        terms = [(1, term) for query in self.plus for term in parse_query(query)]
        terms += [(-1, term) for query in self.minus for term in parse_query(query)]
        if any(term.kind == "stdin" for _, term in terms):
            raise UsageError("--plus and --minus take no stdin", hint="give a text or a file")
        return [Extra.meant(term, sign) for sign, term in terms]


@takes
def sound2img(
    files: Files,
    output: Pictures,
    sampling: SizedSampling,
    blending: Blending,
    arithmetic: Arithmetic,
    excerpt: Excerpt,
    strictness: Strictness,
    models: Models,
    placement: Placement,
    spread: Spread,
    saying: Showing,
) -> None:
    """Turn sounds into pictures of what makes them.

    mmx sound2img bark.wav -o dog.png

    mmx sound2img recordings/ -o pictures/ -n 4

    mmx sound2img sea.wav --plus "a fire" --minus fog.jpg -o evening.png

    cat bark.wav | mmx sound2img - -o - > dog.png
    """
    layout = _layout(output, walks=blending.interpolate is not None)
    request = Request(
        "sound2img",
        expand(files.inputs, "sound"),
        output=output,
        models=models,
        settings=Settings.of(sampling, blending, excerpt, placement),
        saying=saying,
        spread=spread,
        strict=strictness.strict,
        layout=layout,
        suffix=".gif" if layout == "gif" else ".png",
        extras=(*_extras(blending), *arithmetic.extras()),
    )
    carry_out(request)


def _layout(output: Pictures, *, walks: bool) -> str:
    gif = output.output is not None and output.output.lower().endswith(".gif")
    if gif and not walks:
        raise UsageError(
            "a .gif is an animation, and only --interpolate makes one", hint="write .png, or give --interpolate FILE"
        )
    if walks:
        return "gif" if gif else "strip"
    return "grid" if output.grid else "single"


def _weighted(text: str, default: float) -> tuple[str, float]:
    """FILE[:weight] → both. A colon that is part of an existing file's name is left alone."""
    head, colon, tail = text.rpartition(":")
    if not colon or os.path.exists(text):
        return text, default
    try:
        weight = float(tail)
    except ValueError:
        return text, default
    if not 0 <= weight <= 1:
        raise UsageError(f"{text}: a weight lies between 0 and 1")
    return head, weight


def _extras(blending: Blending) -> tuple[Extra, ...]:
    """The files that are blended in. Raises UsageError where one is not there."""
    extras = [Extra(path, "mix", weight) for path, weight in (_weighted(text, 0.5) for text in blending.mix)]
    if blending.interpolate is not None:
        extras.append(Extra(blending.interpolate, "interpolate", 1.0))
    if blending.image is not None:
        path, weight = _weighted(blending.image, 0.5)
        extras.append(Extra(path, "image", weight))
    for extra in extras:
        given_file(extra.path, f"--{extra.role} ")
    return tuple(extras)
