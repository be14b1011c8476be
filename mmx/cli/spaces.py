"""What the commands of joint embeddings share, and `mmx embed` and `mmx tag`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from mmx.cli.batch import each
from mmx.cli.takes import takes
from mmx.cli.talk import Speaker, report
from mmx.declared import Argument, Option
from mmx.errors import MmxError, UsageError
from mmx.media.files import Source, Target, expand, given_file, output_file
from mmx.media.formats import SUFFIXES
from mmx.models.store import missing
from mmx.network import Network
from mmx.options import Device, Files, Overwrite, Saying

if TYPE_CHECKING:
    from mmx.spaces.base import Space
    from mmx.spaces.parts import Cuts, Part


@dataclass(frozen=True)
class SpaceChoice(Network, Device):
    """Which joint embedding is used."""

    space: Annotated[
        Optional[str],
        Option(
            "--space",
            metavar="FOLDER",
            show_default=False,
            help="An image decoder's folder, or one of CLIP, SigLIP or CLAP; hf-hub: ids, too. Default: the starter.",
        ),
    ] = None
    bridge: Annotated[
        Optional[str],
        Option(
            "--bridge",
            metavar="FOLDER",
            show_default=False,
            help="By which sounds, or arrays, come into an image decoder's space. Default: the starter, for sounds.",
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError for a folder that is not there, before any work."""
        for option, name in (("--space", self.space), ("--bridge", self.bridge)):
            if missing(name):
                raise UsageError(f"{option} {missing(name)}: no such model folder")

    def load(self) -> Space:
        """The space. From here on it is slow: torch and the models."""
        from mmx.spaces.load import load_space

        return load_space(self.space, bridge=self.bridge, device=self.device)


@dataclass(frozen=True)
class Cutting:
    """How videos are cut."""

    every: Annotated[
        float, Option("--every", min=0.05, metavar="s", help="Of videos: a frame and its sound each so often.")
    ] = 2.0

    def cuts(self) -> Cuts:
        """As what reads files takes it."""
        from mmx.spaces.parts import Cuts

        return Cuts(self.every)


def each_source(sources: Iterable[Source], work: Callable[[Source], None], saying: Saying) -> None:
    """`work` on every source. Raises as `each` does."""

    def failed(source: Source, error: MmxError) -> None:
        report(error, as_json=saying.as_json, input=source.name)

    each(sources, work, name=lambda source: source.name, failed=failed)


def own_file(path: Path | None, suffix: str, option: str, *, overwrite: bool) -> Target | None:
    """A file that a command writes beside what it says on stdout, where it is asked for. Raises UsageError."""
    if path is None:
        return None
    if str(path) == "-":
        raise UsageError(f"{option} -: stdout is for what is said", hint=f"give a name that ends in {suffix}")
    target = output_file(path, suffix, f"{option} ")
    target.check(overwrite=overwrite)
    return target


def fitting(sources: list[Source], space: Space, say: Speaker) -> list[Source]:
    """The inputs that a space may have an encoder for; all where it has one for none, so that it is said of them."""
    from mmx.spaces.parts import may_hold

    able = [source for source in sources if source.path is None or may_hold(source.path, space)]
    if 0 < len(able) < len(sources):
        say.note(f"{len(sources) - len(able)} files left out: the space {space.name} has no encoder for them")
    return able or sources


def far_texts(space: Space, texts: list[str], say: Speaker) -> list[str]:
    """Which texts are far from everything that a space was trained on, and a note on each."""
    from mmx.decoders.horizon import FAR

    if space.are_far is None or not texts:
        return []
    far = [text for text, is_far in zip(texts, space.are_far(texts), strict=True) if is_far]
    for text in far:
        say.note(f"{text}: {FAR}")
    return far


def read_parts(space: Space, source: Source, cuts: Cuts, say: Speaker) -> Iterable[Part]:
    """An input's parts, with notes on what is unusual about them."""
    from mmx.spaces.parts import notes_on, parts_of

    for part in parts_of(space, source.path or source.read(), source.name, cuts):
        for note in notes_on(source.name, [part]):
            say.note(note)
        yield part


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
        target = output_file(self.output, ".safetensors")
        target.check(overwrite=self.overwrite)
        return target


@dataclass(frozen=True)
class Inputs:
    """What is embedded."""

    inputs: Annotated[
        Optional[list[str]],
        Argument(metavar="[INPUT...]", help="Files, folders, globs, or - for stdin.", show_default=False),
    ] = None


@takes
def embed(files: Inputs, vectors: Vectors, cutting: Cutting, choice: SpaceChoice, saying: Saying) -> None:
    """Embed pictures, sounds, texts and videos in one space.

    mmx embed photos/ bark.wav --text "a dog" -o vectors.safetensors

    The file holds `vectors` (N, D) of unit norm; its metadata says under `mmx` the space, and of each row the id, the
    modality and, of videos, the time.
    """
    target = vectors.target(saying)
    choice.check()
    if not files.inputs and not vectors.text:
        raise UsageError("there is nothing to embed", hint="give files, or --text")
    sources = expand(files.inputs or [], *SUFFIXES)
    space, say, done = choice.load(), Speaker(saying), []
    from mmx.spaces.parts import Part, embedded
    from mmx.spaces.vectors import vector_bytes

    def add(name: str, parts: Iterable[Part]) -> None:
        for part, vector in list(embedded(space, parts)):
            about = {"id": name} | part.about()
            done.append((about, vector))
            say.result({"schema": "mmx.vectors/1", "space": space.name} | about | {"vector": vector.tolist()})

    def work(source: Source) -> None:
        add(source.name, read_parts(space, source, cutting.cuts(), say))

    for text in vectors.text:
        add(text, [Part("text", text)])
    try:
        each_source(fitting(sources, space, say), work, saying)
    finally:
        if target is not None and done:
            target.write(vector_bytes(space, done))
            say.note(f"{target.path or 'stdout'}: {len(done)} vectors of the space {space.name}")


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
    top: Annotated[int, Option(min=1, help="Name at most so many.")] = 3
    threshold: Annotated[float, Option(min=0.0, max=1.0, help="Name none of a smaller share.")] = 0.0

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
def tag(files: Files, labels: Labels, cutting: Cutting, choice: SpaceChoice, saying: Saying) -> None:
    """Name what pictures, sounds and videos are of, by labels that you choose.

    mmx tag bark.wav cat.jpg

    mmx tag photos/ --labels "a beach,a forest,a city" --top 1
    """
    wanted = labels.given()
    choice.check()
    sources = expand(files.inputs, "image", "sound", "video")
    space, say = choice.load(), Speaker(saying)
    from mmx.spaces.parts import embedded
    from mmx.spaces.tags import Tagger, refuse_texts

    tagger = Tagger(space, wanted)
    say.note(f"{len(tagger.labels)} labels in the space {space.name}")
    far = far_texts(space, tagger.labels, say)

    def work(source: Source) -> None:
        for part, vector in embedded(space, read_parts(space, source, cutting.cuts(), say)):
            refuse_texts(part, source.name)
            found = [t for t in tagger.tags(vector, part.modality, labels.top) if t.share >= labels.threshold]
            at = "" if part.start is None else f" at {part.start:g} s"
            words = ", ".join(f"{t.label} {t.share:.2f}" for t in found) or "nothing that is so likely"
            none = tagger.none_of_these(vector, part.modality)
            words = f"none of these; nearest: {words}" if none else words
            about = {"schema": "mmx.tags/1", "input": source.name} | part.about()
            about |= {"tags": [vars(t) for t in found], "none_of_these": none}
            about |= {"far": [t.label for t in found if t.label in far]}
            say.result(about, f"{source.name}{at}: {words}")

    each_source(fitting(sources, space, say), work, saying)
