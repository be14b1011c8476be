"""`mmx calibrate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Optional

import typer

from mmx.cli.consult import SpaceChoice
from mmx.cli.spaces import own_file
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker
from mmx.errors import UsageError
from mmx.media.files import Target
from mmx.network import Network
from mmx.options import Overwrite, Saying


@dataclass(frozen=True)
class Calibrating:
    """On what is measured, and where the result is kept."""

    data: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Holds images-*.tar, sounds-*.tar with `concept` in each .json.", show_default=False
        ),
    ]
    output: Annotated[
        Optional[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.json",
            show_default=False,
            help="Such as calibration.json in the model's folder. Default: your cache.",
        ),
    ] = None
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "val"
    limit: Annotated[int, typer.Option(min=2, help="Take so many pictures and sounds of each concept.")] = 20
    overwrite: Overwrite = False

    def target(self) -> Target | None:
        """The file. Raises UsageError before any work."""
        if not self.data.is_dir():
            raise UsageError(f"{self.data}: no such folder")
        return own_file(self.output, ".json", "-o", overwrite=self.overwrite)


@takes
def calibrate(what: Calibrating, choice: SpaceChoice, network: Network, saying: Saying) -> None:
    """Measure from which similarity on a space may say that something is there.

    mmx calibrate data/ --space runs/image/decoder

    Only with that does `mmx tag` say "none of these", and `mmx localize` "not here". It belongs to these very weights.
    """
    target = what.target()
    choice.check()
    space, say = choice.load(), Speaker(saying)
    from mmx.spaces.calibration import as_json, kept_at
    from mmx.spaces.calibration import calibrate as measure

    found = measure(space, what.data, split=what.split, limit=what.limit)
    target = target or Target(kept_at(space.fingerprint))
    target.write(as_json(found))
    about = {"schema": "mmx.calibrated/1", "space": space.name, "output": str(target.path)}
    tables = {name: {m: asdict(t) for m, t in getattr(found, name).items()} for name in ("tags", "places")}
    say.result(about | tables)
    for name, table in tables.items():
        for modality, row in table.items():
            said = f"said of {row['there']:.2f} that are there and of {row['absent']:.2f} that are not"
            say.note(f"{name}, {modality}: from {row['at']:.3f} on, {said}")
    say.note(f"{target.path}: the calibration of the space {space.name}")
