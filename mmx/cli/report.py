"""`mmx report`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

from mmx.cli.takes import takes
from mmx.declared import Argument, Option
from mmx.errors import UsageError
from mmx.media.files import output_file
from mmx.media.names import printable
from mmx.options import Overwrite, Quiet


@dataclass(frozen=True)
class Pages:
    """What is shown, and on which page."""

    folders: Annotated[list[str], Argument(metavar="FOLDER...", help="Folders of results.", show_default=False)]
    output: Annotated[
        Optional[str],
        Option("-o", "--output", metavar="OUT.html", show_default=False, help="Default: FOLDER/report.html."),
    ] = None
    inputs: Annotated[
        list[str],
        Option(
            "--inputs", metavar="FOLDER", show_default=False, help="Where inputs lie, too. Default: the current folder."
        ),
    ] = field(default_factory=list)
    title: Annotated[Optional[str], Option(show_default=False, help="Default: the folder's name.")] = None
    overwrite: Overwrite = False


@takes
def report(pages: Pages, saying: Quiet) -> None:
    """Show a folder of results on one page: inputs beside outputs, players, spectrograms, what made them.

    The page is one file that opens from disk and needs no network. Tables that `mmx eval` wrote are shown, too.

    mmx report pictures/ -o report.html --inputs recordings/
    """
    absent = next((folder for folder in (*pages.folders, *pages.inputs) if not Path(folder).is_dir()), None)
    if absent is not None:
        raise UsageError(f"{absent}: no such folder")
    target = output_file(pages.output or Path(pages.folders[0]) / "report.html", ".html")
    target.check(overwrite=pages.overwrite)
    from mmx.media.gallery import gather
    from mmx.media.gallery_page import page

    found = gather([Path(folder) for folder in pages.folders], [Path(f) for f in pages.inputs] or [Path.cwd()])
    target.write(page(found, printable(pages.title or Path(pages.folders[0]).resolve().name)).encode())
    if not saying.quiet:
        for problem in found.problems:
            print(f"mmx: {printable(problem)}", file=sys.stderr)
        print(f"{printable(str(target.path or 'stdout'))}: {len(found.items)} results", file=sys.stderr)
