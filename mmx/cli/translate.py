"""What the translating commands share: where results go, and that one bad input does not stop the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mmx.cli.batch import each
from mmx.cli.engine import Engine, open_engine
from mmx.cli.ledger import Ledger, job_digest
from mmx.cli.preview import Showing, preview
from mmx.cli.talk import Talk
from mmx.declared import Option
from mmx.errors import NonFiniteError, UsageError
from mmx.launch import launched, stray
from mmx.media.files import Source, Target, Text, names_a_file
from mmx.media.stores import plan
from mmx.models.store import missing
from mmx.network import Clustered
from mmx.options import BridgeAndDecoder, Output, Settings
from mmx.spaces.query import Term
from mmx.tasks import task as find_task

if TYPE_CHECKING:
    from mmx.media.given import Done, Given, Job

# whether --resume was given → how a batch that was interrupted is gone on with
GO_ON = {True: "the same command goes on", False: "--overwrite makes all again; a batch begun with --resume goes on"}
Group = tuple[list[Source], list[Target]]  # sources that are translated together, and where their results go


@dataclass(frozen=True)
class Strictness:
    """What becomes of sounds of which a part is missing."""

    strict: Annotated[
        bool,
        Option(
            "--strict", help="Refuse a sound that is cut short or damaged. Default: hear what is there, and say so."
        ),
    ] = False


@dataclass(frozen=True)
class Extra:
    """A file, or a text, that is blended in: its role is the option's name."""

    path: str
    role: str
    weight: float = 1.0
    is_text: bool = False

    @classmethod
    def meant(cls, term: Term, sign: float = 1.0) -> Extra:
        """What a term of a query means, added or, with a weight below 0, taken off."""
        weight = sign * term.weight
        return cls(term.value, "plus" if weight > 0 else "minus", abs(weight), is_text=term.kind == "text")

    def given(self) -> Given:
        """As a job takes it. Raises InputError."""
        from mmx.media.given import Given

        if self.is_text:
            return Given(self.path, self.path.encode(), self.role, self.weight, is_text=True)
        source = Source(Path(self.path), Path(self.path))
        return Given(source.name, source.read(), self.role, self.weight)


@dataclass(frozen=True)
class Request:
    """A translating command's line."""

    command: str
    sources: list[Source]
    output: Output
    models: BridgeAndDecoder
    settings: Settings
    saying: Showing
    layout: str = "single"
    suffix: str = ".png"
    extras: tuple[Extra, ...] = ()
    strict: bool = False  # whether sounds of which a part is missing are refused
    drawing: Path | None = None  # where a picture of the one spoken result goes
    spread: Clustered = Clustered()  # where it is computed

    @property
    def together(self) -> bool:
        """Whether all sources make one result, or one sheet."""
        sheet = self.layout == "grid" and len(self.sources) > 1 and names_a_file(self.output.output)
        return self.settings.average or sheet

    @property
    def previews(self) -> bool:
        """Whether a terminal shows the results: not those of a batch."""
        says = self.saying
        return not (says.quiet or says.as_json or says.no_preview) and (self.together or len(self.sources) == 1)

    def groups(self) -> list[Group]:
        """What is to be done. Raises UsageError before any work."""
        output = self.output
        self.spread.check()
        count = 1 if self.layout != "single" else output.num
        sources = self.sources[:1] if self.together else self.sources
        targets = plan(sources, output.output, count, self.suffix)
        for target in (target for group in targets for target in group):
            target.check(overwrite=output.overwrite or output.resume)
        if output.resume and (output.output is None or names_a_file(output.output)):
            raise UsageError("--resume is for a folder of results", hint="give -o FOLDER")
        if self.saying.as_json and output.output == "-":
            raise UsageError("--json and the result both want stdout", hint="give -o FILE")
        for name in vars(self.models).values():
            if missing(name):
                raise UsageError(f"{missing(name)}: no such model folder")
        if self.together:
            return [(self.sources, targets[0])]
        return [([source], own) for source, own in zip(self.sources, targets, strict=True)]


def carry_out(request: Request, prepare: Callable[[Engine], None] | None = None) -> None:
    """Load the models once, or find a server that has them, and translate every input. prepare: what computes, before
    the first.

    Raises UsageError, a single input's error, or PartialFailure.
    """
    groups = request.groups()
    talk = Talk(request.saying, find_task(request.command).verb)
    started = time.perf_counter()
    engine = open_engine(request.spread, request.command, request.models, request.settings, talk.note)
    try:
        talk.note(f"models ready in {time.perf_counter() - started:.1f} s, {engine.place}")
        if engine.notice:
            talk.note(engine.notice)
        if prepare is not None:
            prepare(engine)
        _translate_all(engine, request, _own_share(groups, talk), talk)
    finally:
        engine.close()


def _own_share(groups: list[Group], talk: Talk) -> list[Group]:
    """What this process does of what several were started for."""
    here = launched()
    own = groups[here.rank :: here.world]
    if here.world > 1:
        talk.note(f"process {here.rank + 1} of {here.world}: {len(own)} of {len(groups)} results are its share")
    elif stray():
        talk.note(f"{' and '.join(stray())} without a launcher's other variables: nothing is shared, all is done here")
    return own


def _translate_all(engine: Engine, request: Request, groups: list[Group], talk: Talk) -> None:
    """Every group, in turn. Raises as `each` does."""
    blended = tuple(extra.given() for extra in request.extras)
    ledger = Ledger(str(request.output.output)) if request.output.resume else None
    try:
        each(
            groups,
            lambda group: _translate_one(engine, request, group, blended, ledger),
            name=lambda group: group[0][0].name,
            said=lambda group, made: _tell(request, group, made, talk),
            failed=lambda group, error: talk.failed(group[0], error),
            go_on=GO_ON[request.output.resume],
            shown=not request.saying.quiet,
            width=min(engine.width, len(groups)),
        )
    finally:
        if ledger:
            ledger.close()


def _translate_one(
    engine: Engine, request: Request, group: Group, blended: tuple[Given, ...], ledger: Ledger | None
) -> tuple[Job, Done] | None:
    """The job and its results, which are written; None where it was done before."""
    from mmx.media.given import Given, Job

    sources, targets = group
    given = tuple(Given(source.name, source.read(), is_text=isinstance(source, Text)) for source in sources)
    indices = tuple(range(request.output.num))
    options = {"layout": request.layout, "command": request.command, "strict": request.strict}
    job = Job(given + blended, request.settings, indices, **options)
    key = job_digest(job, engine.models) if ledger else ""
    if ledger and ledger.has(key, targets):
        return None
    done = engine.run(job)
    _write(done, targets, request.drawing)
    if ledger and not done.stopped:
        ledger.add(key, targets)
    return job, done


def _tell(request: Request, group: Group, made: tuple[Job, Done] | None, talk: Talk) -> None:
    """What is said and shown of a group that is done. Raises where that ended before its time."""
    sources, targets = group
    if made is None:
        talk.note(f"{sources[0].name}: already done")
        return
    job, done = made
    talk.done(job, done, targets[: len(done.artifacts)])
    if request.previews:
        preview([artifact.data for artifact in done.artifacts])
    if done.stopped == "interrupted":
        raise KeyboardInterrupt
    if done.stopped:
        raise NonFiniteError(f"{sources[0].name}: a loss became no number", hint="what was best by then is written")


def _write(done: Done, targets: list[Target], drawing: Path | None) -> None:
    for target, artifact in zip(targets, done.artifacts, strict=not done.stopped):
        target.write(artifact.data)
        if drawing is not None:
            _draw(artifact.data, drawing)


def _draw(data: bytes, path: Path) -> None:
    from mmx.media.audio import read_audio
    from mmx.media.image import png_bytes
    from mmx.media.show import draw_sound

    Target(path).write(png_bytes(draw_sound(read_audio(data, sample_rate=None))))
