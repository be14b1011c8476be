"""`mmx localize`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

from mmx.cli.spaces import SpaceChoice, own_file
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.declared import Argument, Option
from mmx.errors import UsageError
from mmx.media.files import Source, Target
from mmx.options import Overwrite, Saying
from mmx.spaces.query import parse_query


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
def localize(where: Where, choice: SpaceChoice, saying: Saying) -> None:
    """Say where in a picture something is that a sound or a text is about.

    mmx localize street.jpg siren.wav -o heat.png

    mmx localize street.jpg "a dog" --json

    The peak and the box are in pixels of the picture, from its upper left corner.
    """
    drawings = where.targets()
    terms = parse_query(where.query)
    choice.check()
    space, say = choice.load(), Speaker(saying)
    from mmx.media.image import png_bytes, read_image
    from mmx.spaces.place import draw_mask, draw_place, find_place

    picture = read_image(where.image)
    place = find_place(space, picture, terms, Source(None, Path("stdin")).read)
    for target, draw in zip(drawings, (draw_place, draw_mask), strict=True):
        if target is not None:
            target.write(png_bytes(draw(picture, place)))
    about = {"schema": "mmx.place/1", "input": str(where.image), "query": where.query, "here": place.here}
    about |= {"peak": list(place.peak), "box": list(place.box), "score": place.score}
    here = "not here; at most" if place.here is False else "here:"
    say.result(about, f"{where.image}: {here} {place.peak}, box {place.box}, score {place.score:.3f}")
    say.note(f"looked at in the space {space.name}")
