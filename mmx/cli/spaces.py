"""What the commands of joint embeddings share, and `mmx embed` and `mmx tag`."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

from mmx.cli.batch import each
from mmx.cli.consult import Consultation, SpaceChoice, consulting
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker, report
from mmx.declared import Argument, Option
from mmx.errors import MmxError, UsageError
from mmx.media import stores
from mmx.media.files import Source, Target, Text, expand, given_file, output_file
from mmx.media.formats import SUFFIXES
from mmx.network import Serving, Spread
from mmx.options import Files, Overwrite, Saying
from mmx.recipes.asking import Cutting, MostTags, Tagging, Threshold
from mmx.spaces.query import Term
from mmx.spaces.question import Answer, Facts, Question, term_of

if TYPE_CHECKING:
    from mmx.guided.asked import Asked


def own_file(path: Path | None, suffix: str, option: str, *, overwrite: bool) -> Target | None:
    """A file that a command writes beside what it says on stdout, where it is asked for. Raises UsageError."""
    if path is None:
        return None
    if str(path) == "-":
        raise UsageError(f"{option} -: stdout is for what is said", hint=f"give a name that ends in {suffix}")
    target = output_file(path, suffix, f"{option} ")
    target.check(overwrite=overwrite)
    return target


def fitting(sources: list[Source], space: Facts, say: Speaker) -> list[Source]:
    """The inputs that a space may have an encoder for; all where it has one for none, so that it is said of them."""
    able = [source for source in sources if space.may_hold(Path(source.name))]
    if 0 < len(able) < len(sources):
        say.note(f"{len(sources) - len(able)} files left out: the space {space.name} has no encoder for them")
    return able or sources


@dataclass(frozen=True)
class Vectors:
    """Where vectors go."""

    output: Annotated[
        Optional[str],
        Option("-o", "--output", metavar="OUT", show_default=False, help="A .safetensors file, or - for stdout."),
    ] = None
    text: Annotated[
        list[str], Option("--text", metavar="TEXT", show_default=False, help="A text; several may be given.")
    ] = field(default_factory=list)
    overwrite: Overwrite = False

    def target(self, saying: Saying) -> Target | None:
        """The file. Raises UsageError before any work."""
        if not all(text.strip() for text in self.text):
            raise UsageError("--text is empty", hint="give words")
        if self.output is None:
            if not saying.as_json:
                raise UsageError("there is nowhere to put vectors", hint="-o FILE.safetensors, or --json")
            return None
        if self.output == "-" and saying.as_json:
            raise UsageError("--json and the vectors both want stdout", hint="give -o FILE")
        target = stores.place_of(self.output, ".safetensors")
        target.check(overwrite=self.overwrite)
        return target


@dataclass(frozen=True)
class Inputs:
    """What is embedded."""

    inputs: Annotated[
        Optional[list[str]],
        Argument(metavar="[INPUT...]", help="Files, folders, globs, or - for stdin.", show_default=False),
    ] = None


class Rows:
    """Rows of a vectors file, in the inputs' order whatever the order in which they come."""

    def __init__(self, space: Facts) -> None:
        self.space = space
        self.of: dict[int, list[tuple[dict[str, Any], bytes]]] = {}

    def add(self, place: int, answer: Answer) -> list[dict[str, Any]]:
        """An input's rows → as `--json` says them."""
        (blob,), size = answer.blobs, 4 * self.space.dim
        rows = [blob[start : start + size] for start in range(0, len(blob), size)]
        self.of[place] = list(zip(answer.results, rows, strict=True))
        head = {"schema": "mmx.vectors/1", "space": self.space.name}
        return [head | about | {"vector": array("f", row).tolist()} for about, row in self.of[place]]

    def all(self) -> list[tuple[dict[str, Any], bytes]]:
        return [row for place in sorted(self.of) for row in self.of[place]]


@takes
def embed(
    files: Inputs, vectors: Vectors, cutting: Cutting, choice: SpaceChoice, spread: Spread, saying: Saying
) -> None:
    """Embed pictures, sounds, texts and videos in one space.

    mmx embed photos/ bark.wav --text "a dog" -o vectors.safetensors

    The file holds `vectors` (N, D) of unit norm; its metadata says under `mmx` the space, and of each row the id, the
    modality and, of videos, the time.
    """
    target = vectors.target(saying)
    choice.check()
    spread.check()
    if not files.inputs and not vectors.text:
        raise UsageError("there is nothing to embed", hint="give files, or --text")
    sources, say = stores.expand(files.inputs or [], *SUFFIXES), Speaker(saying)
    with consulting("embed", choice, spread, say) as space:
        rows = Rows(space.facts)
        try:
            _embed(space, [Text(None, Path(), text) for text in vectors.text], rows, cutting)
            _embed(space, fitting(sources, space.facts, say), rows, cutting)
        finally:
            if target is not None and rows.of:
                from mmx.spaces.vectors import vector_bytes

                found = rows.all()
                target.write(vector_bytes(space.facts, found))
                say.note(f"{target.name}: {len(found)} vectors of the space {space.facts.name}")


def _embed(space: Consultation, sources: list[Source], rows: Rows, cutting: Cutting) -> None:
    """Texts, or files, some at a time where that is possible. Raises as `each` does."""
    begun = len(rows.of)

    def work(numbered: tuple[int, Source]) -> list[Answer]:
        source = numbered[1]
        term = Term("text", source.text) if isinstance(source, Text) else term_of(source)
        return space.ask(Question("embed", cutting, (term,)))

    def said(numbered: tuple[int, Source], answers: list[Answer]) -> None:
        for answer in space.told(answers):
            for about in rows.add(begun + numbered[0], answer):
                space.say.result(about)

    each_source(sources, space, work=work, said=said)


def each_source(
    sources: Sequence[Source | Asked], space: Consultation, *, work: Any, said: Any = lambda numbered, result: None
) -> None:
    """`work` on every source, or sum, and its number, and `said` of what comes of it. Raises as `each` does."""

    def failed(numbered: tuple[int, Source | Asked], error: MmxError) -> None:
        report(error, as_json=space.say.saying.as_json, input=numbered[1].name)

    width = min(space.width, max(len(sources), 1))
    each(list(enumerate(sources)), work, name=lambda own: own[1].name, failed=failed, said=said, width=width)


@dataclass(frozen=True)
class Labels:
    """What is told apart, and what is said of it."""

    labels: Annotated[
        Optional[str],
        Option(metavar="A,B,C", show_default=False, help="What to choose from. Default: what the space knows."),
    ] = None
    labels_file: Annotated[Optional[Path], Option(metavar="FILE", show_default=False, help="The same, one a line.")] = (
        None
    )
    top: MostTags = 3
    threshold: Threshold = 0.0

    def given(self) -> list[str]:
        """The labels, each once. Raises UsageError where some are asked for and none is there."""
        if self.labels is not None and self.labels_file is not None:
            raise UsageError("--labels and --labels-file say the same", hint="give one of them")
        if self.labels is None and self.labels_file is None:
            return []
        names = self.labels.split(",") if self.labels is not None else _lines_of(self.labels_file)
        found = list(dict.fromkeys(name.strip() for name in names if name.strip()))
        if not found:
            raise UsageError("there are no labels", hint="such as --labels dog,cat,car")
        return found


def _lines_of(path: Path) -> list[str]:
    try:
        return given_file(path, "--labels-file ").read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"--labels-file {path}: no such text file") from None


@takes
def tag(files: Files, labels: Labels, cutting: Cutting, choice: SpaceChoice, serving: Serving, saying: Saying) -> None:
    """Name what pictures, sounds and videos are of, by labels that you choose.

    mmx tag bark.wav cat.jpg

    mmx tag photos/ --labels "a beach,a forest,a city" --top 1
    """
    wanted = labels.given()
    choice.check()
    sources, say = expand(files.inputs, "image", "sound", "video"), Speaker(saying)
    with consulting("tag", choice, serving, say) as space:
        options = Tagging(tuple(wanted), labels.top, labels.threshold, cutting.every)
        space.one(Question("labels", options))

        def work(numbered: tuple[int, Source]) -> Iterable[Answer]:
            return space.each(Question("tag", options, (term_of(numbered[1]),)))

        def said(numbered: tuple[int, Source], answers: Iterable[Answer]) -> None:
            for about in (about for answer in answers for about in answer.results):
                say.result(about, _line(about))

        each_source(fitting(sources, space.facts, say), space, work=work, said=said)


def _line(about: dict[str, Any]) -> str:
    """What was found in a part of a file, for people."""
    at = f" at {about['start']:g} s" if "start" in about else ""
    words = ", ".join(f"{own['label']} {own['share']:.2f}" for own in about["tags"]) or "nothing that is so likely"
    return f"{about['input']}{at}: {'none of these; nearest: ' if about['none_of_these'] else ''}{words}"
