"""`mmx edit`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from mmx.cli.preview import Showing, in_colour
from mmx.cli.takes import takes
from mmx.cli.translate import Extra, Request, carry_out
from mmx.declared import Argument, Option
from mmx.errors import InputError, UsageError
from mmx.media.face_texts import said
from mmx.media.files import given_file
from mmx.media.stores import expand
from mmx.network import Spread
from mmx.options import Decoder, Output, Placement, Seed, Settings
from mmx.recipes.editing import Editing
from mmx.spaces.query import parse_query

if TYPE_CHECKING:
    from mmx.cli.engine import Engine

IMAGES = "starter/image"  # the starter decoder that draws anything


@dataclass(frozen=True)
class Wish:
    """What is edited, and toward what."""

    picture: Annotated[str, Argument(metavar="PICTURE", help="A picture, a folder, a glob, or -.", show_default=False)]
    wish: Annotated[
        Optional[str],
        Argument(metavar="[TEXT]", help="What it is to become; for several terms as in search.", show_default=False),
    ] = None
    sound: Annotated[
        Optional[str],
        Option("--sound", metavar="FILE", show_default=False, help="Edit it toward what a sound is of."),
    ] = None
    seed: Seed = 0
    steps: Annotated[
        Optional[int],
        Option("--steps", min=1, max=10_000, show_default=False, help="Steps of the edit. Default: 30."),
    ] = None

    def extras(self, mapper: str | None) -> tuple[Extra, ...]:
        """The terms as inputs; of a mapper its own text, unless one is given. Raises UsageError where there are none,
        and for what can't be read as a query."""
        if mapper is not None:
            if self.sound is not None:
                raise UsageError("a mapper has a text of its own", hint="leave --sound out")
            text = self.wish or _text_of(mapper)
            return (Extra(text, "plus", is_text=True),) if text else ()
        terms = [] if self.wish is None else parse_query(self.wish)
        if any(term.kind not in ("text", "file") for term in terms):
            raise UsageError(f"{self.wish}: a picture is edited toward texts and files")
        found = [Extra.meant(term) for term in terms]
        if self.sound is not None:
            found.append(Extra(str(given_file(self.sound, "--sound ")), "plus"))
        if not found:
            raise UsageError("nothing says what the picture is to become", hint='mmx edit PICTURE "an old man"')
        return tuple(found)


@dataclass(frozen=True)
class Guiding:
    """Which models draw and guide."""

    bridge: Annotated[
        Optional[str],
        Option(
            "--mapper",
            metavar="FOLDER",
            show_default=False,
            help="Edit at once by what mmx train-mapper made; its text need not be given again.",
        ),
    ] = None
    decoder: Decoder = None
    encoder: Annotated[
        Optional[str],
        Option(
            "--space", metavar="FOLDER", show_default=False, help="The space that guides. Default: the decoder's own."
        ),
    ] = None


@takes
def edit(
    wish: Wish,
    output: Output,
    editing: Editing,
    models: Guiding,
    placement: Placement,
    spread: Spread,
    saying: Showing,
) -> None:
    """Edit a picture or a face toward a text or a sound; every network stays frozen.

    A text about a face (age, woman, man) is for faces, and the starter face decoder draws them; else the image decoder.

    mmx edit face.png "an old woman" -o old.png

    mmx edit face.png "an old man" --strip -o strip.png

    mmx edit dog.png --sound sea.wav -o dog-at-sea.png

    mmx edit faces/ --mapper run/mapper -o old/
    """
    extras = wish.extras(models.bridge)
    _check_mapper(wish, editing, models)
    if (editing.strip or editing.direction) and models.encoder is not None:
        raise UsageError("--direction and --strip go through the decoder's own space", hint="leave --space out")
    if editing.strip and output.num > 1:
        raise UsageError("--strip is one row of pictures", hint="leave -n out")
    of_faces = all(extra.is_text and about_a_face(extra.path) for extra in extras)
    request = Request(
        "edit",
        expand([wish.picture], "image"),
        output=output,
        models=models if models.decoder or of_faces else replace(models, decoder=IMAGES),
        settings=Settings.of(wish, editing, placement),
        saying=saying,
        spread=spread,
        layout="strip" if editing.strip else "single",
        extras=extras,
    )
    carry_out(request, _shown if in_colour(sys.stderr) and not saying.quiet else None)


def _text_of(mapper: str) -> str | None:
    """What a mapper's folder says that it maps to; nothing where it can't be read, which loading it will tell."""
    try:
        return str(next(iter(json.loads((Path(mapper) / "config.json").read_text(encoding="utf8"))["labels"])))
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return None


def _check_mapper(wish: Wish, editing: Editing, models: Guiding) -> None:
    """Raises UsageError for what makes no sense beside a mapper."""
    if models.bridge is None:
        return
    if wish.steps is not None or editing.direction or models.encoder is not None:
        raise UsageError("--mapper edits at once, and its own way", hint="leave --steps, --direction and --space out")


def about_a_face(text: str) -> bool:
    """Whether a text says something of a face."""
    try:
        return bool(said(text))
    except InputError:
        return False


def _shown(engine: Engine) -> None:
    """A line on the terminal that says how far it is."""

    def watch(step: int, total: int, losses: dict[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        end = "\n" if step == total else ""
        print(f"\r\x1b[K{step}/{total} {shown}", end=end, file=sys.stderr, flush=True)

    engine.watched(watch)
