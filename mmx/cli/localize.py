"""`mmx localize`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

from mmx.cli.consult import SpaceChoice, consulting
from mmx.cli.spaces import own_file
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.declared import Argument, Option
from mmx.errors import UsageError
from mmx.media.files import Target
from mmx.network import Serving
from mmx.options import Overwrite, Saying
from mmx.recipes.asking import Locating
from mmx.spaces.query import Term, parse_query
from mmx.spaces.question import Question, with_stdin


@dataclass(frozen=True)
class Where:
    """What is looked for, in what, and where the drawings go."""

    image: Annotated[Path, Argument(metavar="IMAGE", help="A picture.", show_default=False)]
    query: Annotated[
        str,
        Argument(metavar="QUERY", help="A sound, a text, - for stdin, or a sum as of mmx search.", show_default=False),
    ]
    output: Annotated[
        Optional[Path],
        Option(
            "-o", "--output", metavar="HEAT.png", show_default=False, help="Draw it over the picture: heat and box."
        ),
    ] = None
    mask: Annotated[
        Optional[Path], Option(metavar="MASK.png", show_default=False, help="Draw it in white on black.")
    ] = None
    overwrite: Overwrite = False

    def targets(self) -> list[Target | None]:
        """Where the heat and the mask go. Raises UsageError before any work."""
        if not self.image.is_file():
            raise UsageError(f"{self.image}: no such picture")
        asked = {"-o": self.output, "--mask": self.mask}
        return [own_file(path, ".png", option, overwrite=self.overwrite) for option, path in asked.items()]


@takes
def localize(where: Where, choice: SpaceChoice, serving: Serving, saying: Saying) -> None:
    """Say where in a picture something is that a sound or a text is about.

    mmx localize street.jpg siren.wav -o heat.png

    mmx localize street.jpg "a dog" --json

    The peak and the box are in pixels of the picture, from its upper left corner.
    """
    drawings = where.targets()
    terms = parse_query(where.query)
    choice.check()
    say, image = Speaker(saying), str(where.image)
    options = Locating(*(drawing is not None for drawing in drawings))
    with consulting("localize", choice, serving, say) as space:
        answer = space.one(Question("localize", options, (Term("file", image), *with_stdin(terms))))
        for target, drawn in zip(filter(None, drawings), answer.blobs, strict=True):
            target.write(drawn)
        (place,) = answer.results
        say.result({"schema": "mmx.place/1", "input": image, "query": where.query} | place, _line(image, place))
        say.note(f"looked at in the space {space.facts.name}")


def _line(image: str, place: dict[str, Any]) -> str:
    here = "not here; at most" if place["here"] is False else "here:"
    return f"{image}: {here} {tuple(place['peak'])}, box {tuple(place['box'])}, score {place['score']:.3f}"
