"""`mmx index` and `mmx search`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

from mmx.cli.consult import SpaceChoice, consulting
from mmx.cli.preview import counting
from mmx.cli.spaces import fitting, own_file
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker, report
from mmx.declared import Argument, Option
from mmx.errors import PartialFailure, UsageError
from mmx.media.files import Source, Target, expand
from mmx.media.formats import MODALITIES, SUFFIXES
from mmx.network import Clustered, Serving
from mmx.options import Overwrite, Saying
from mmx.progress import Told
from mmx.recipes.asking import Cutting, Exact, Modality, MostHits, Searching
from mmx.spaces.query import parse_query
from mmx.spaces.question import Hit, Question, with_stdin

if TYPE_CHECKING:
    from mmx.spaces.indexing import Indexed

EACH = 5.0  # seconds between two notes on how far it is


@dataclass(frozen=True)
class Folders:
    """What is indexed, and where the index is."""

    inputs: Annotated[list[str], Argument(metavar="FOLDER...", help="Folders, files or globs.", show_default=False)]
    output: Annotated[Path, Option("-o", "--output", metavar="INDEX", show_default=False, help="The index, a folder.")]

    def sources(self) -> list[Source]:
        """The files. Raises UsageError."""
        if "-" in self.inputs:
            raise UsageError("an index is of files, not of stdin", hint="give a folder")
        if self.output.exists() and not self.output.is_dir():
            raise UsageError(f"{self.output} is a file", hint="an index is a folder")
        return expand(self.inputs, *SUFFIXES)


@takes
def index(folders: Folders, cutting: Cutting, choice: SpaceChoice, spread: Clustered, saying: Saying) -> None:
    """Index pictures, sounds, texts and videos, so that `mmx search` finds them.

    mmx index photos/ recordings/ -o my.idx

    A second run embeds only what is new or changed and drops what was deleted. What can't be read is named and skipped
    (exit code 6). Stopped at any moment, it goes on with the same command, in the graph, too, by which 100,000 rows and
    more are searched.
    """
    sources = folders.sources()
    choice.check()
    spread.check()
    say = Speaker(saying)
    with consulting("index", choice, spread, say) as space:
        from mmx.cli.workers import Workers
        from mmx.spaces.indexing import update
        from mmx.spaces.near import LARGE, usable
        from mmx.spaces.parts import Cuts

        paths = [source.path for source in fitting(sources, space.facts, say) if source.path]
        by = Workers(space, cutting) if spread.on_ray else None
        own = space.facts if by else space.engine.consulted.space
        with counting(shown=not saying.quiet) as told:
            files, rows = (told or _notes(say, what) for what in ("new files", "rows in the graph for searching"))
            done = update(folders.output, own, paths, Cuts(cutting.every), say=files, linked=rows, by=by)
    for path, error in done.unreadable:
        report(error, as_json=saying.as_json, input=path)
    about = {name: value for name, value in vars(done).items() if name != "unreadable"}
    say.result({"schema": "mmx.indexed/1", "index": str(folders.output), "space": space.facts.name} | about)
    say.note(f"{folders.output}: {_summary(done)}")
    if done.rows >= LARGE and not usable():
        say.note("searching so many is faster with pip install 'mmx[search]', and mmx index once more")
    if done.unreadable:
        raise PartialFailure(f"{len(done.unreadable)} of {len(paths)} files can't be read; the others are indexed")


def _notes(say: Speaker, what: str) -> Told:
    """A note now and then on how far it is."""
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > EACH:
            last = time.monotonic()
            say.note(f"{done} of {of} {what}")

    return tell


def _summary(done: Indexed) -> str:
    counts = f"{done.embedded} embedded, {done.kept} unchanged, {done.moved} moved, {done.dropped} dropped"
    return f"{done.rows} rows; files: {counts}, {len(done.unreadable)} unreadable"


@dataclass(frozen=True)
class Query:
    """What is searched for, and where."""

    index: Annotated[Path, Argument(metavar="INDEX", help="What mmx index made.", show_default=False)]
    query: Annotated[str, Argument(metavar="QUERY", help="A text, a file, - for stdin, or a sum.", show_default=False)]
    top: MostHits = 10
    modality: Modality = None
    sheet: Annotated[
        Optional[Path],
        Option(metavar="OUT.png", show_default=False, help="Draw the hits as a contact sheet, too."),
    ] = None
    exact: Exact = False
    overwrite: Overwrite = False

    def check(self) -> Target | None:
        """Where the sheet goes. Raises UsageError."""
        if self.modality not in (None, *MODALITIES):
            raise UsageError(f"--modality {self.modality}: no such modality", hint=", ".join(MODALITIES))
        if not self.index.is_dir():
            raise UsageError(f"{self.index}: no such index", hint=f"mmx index FOLDER -o {self.index}")
        return own_file(self.sheet, ".png", "--sheet", overwrite=self.overwrite)


@takes
def search(query: Query, cutting: Cutting, choice: SpaceChoice, serving: Serving, saying: Saying) -> None:
    """Find what is nearest to a text, a picture, a sound, or a sum of them.

    mmx search my.idx "a dog in the snow"

    mmx search my.idx "bark.wav + 0.5*beach.jpg - 'rain'" --modality image --sheet hits.png

    mmx search my.idx array:sketch.png --bridge runs/edges

    In a sum, + and - stand between spaces, a text may be in quotes, and a weight with * before a term. array: before a
    file asks with what --bridge is for, such as a drawing: without it, a drawing is looked at as a photo.

    Hits are ordered by `standing`: the score in units of what is usual with their modality, so that none comes first
    for being the query's own.
    """
    target = query.check()
    terms = parse_query(query.query)
    choice.check()
    say, index = Speaker(saying), str(query.index)
    options = Searching(index, query.top, query.modality, query.exact, cutting.every)
    with consulting("search", choice, serving, say, folders=(index,)) as space:
        (answer,) = space.one(Question("search", options, with_stdin(terms))).results
        hits = [Hit(*hit) for hit in answer["hits"]]
        found = [_about(hit) for hit in hits]
        about = {"schema": "mmx.hits/1", "query": query.query, "space": space.facts.name}
        say.result(about | {"far": answer["far"], "hits": found}, "\n".join(map(_line, found)))
    if not hits:
        say.note("nothing was found")
    if target is not None:
        from mmx.media.image import png_bytes
        from mmx.spaces.sheet import draw_hits

        target.write(png_bytes(draw_hits(hits, query.query)))


def _about(hit: Hit) -> dict[str, Any]:
    """A hit as JSON has it; paths below the current folder without it."""
    row, here = hit.row, os.getcwd() + os.sep
    about = {"path": row["path"].removeprefix(here), "modality": row["modality"], "score": hit.score}
    about |= {"standing": hit.standing, "start": row.get("start")}
    return about | {name: row[name] for name in ("line", "text") if name in row}


def _line(hit: dict[str, Any]) -> str:
    at = "" if hit["start"] is None else f"  at {hit['start']:g} s"
    return f"{hit['score']:.3f}  {hit['modality']}  {hit['path']}{at}{'  ' + hit['text'] if 'text' in hit else ''}"
