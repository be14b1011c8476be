"""What the translating commands share: where results go, and that one bad input does not stop the rest."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmx.cli.ledger import Ledger, job_digest, share
from mmx.cli.talk import Talk, unexpected
from mmx.errors import DiskError, MmxError, ModelError, PartialFailure, UsageError
from mmx.media.files import Source, Target, Text, names_a_file, plan
from mmx.models.store import missing
from mmx.options import BridgeAndDecoder, Output, Saying, Settings
from mmx.tasks import TASKS

if TYPE_CHECKING:
    from mmx.translate.base import Translator
    from mmx.translate.job import Done, Given

ENDING = (UsageError, ModelError, DiskError)  # errors of no single input
Group = tuple[list[Source], list[Target]]  # sources that are translated together, and where their results go


@dataclass(frozen=True)
class Extra:
    """A file that is blended in: its role is the option's name."""

    path: str
    role: str
    weight: float = 1.0


@dataclass(frozen=True)
class Request:
    """A translating command's line."""

    command: str
    sources: list[Source]
    output: Output
    models: BridgeAndDecoder
    settings: Settings
    saying: Saying
    layout: str = "single"
    suffix: str = ".png"
    extras: tuple[Extra, ...] = ()
    drawing: Path | None = None  # where a picture of the one spoken result goes

    @property
    def together(self) -> bool:
        """Whether all sources make one result, or one sheet."""
        sheet = self.layout == "grid" and len(self.sources) > 1 and names_a_file(self.output.output)
        return self.settings.average or sheet

    def groups(self) -> list[Group]:
        """What is to be done. Raises UsageError before any work."""
        output = self.output
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


def carry_out(request: Request) -> None:
    """Load the models once and translate every input. Raises UsageError, a single input's error, or PartialFailure."""
    groups = request.groups()
    talk = Talk(request.saying, TASKS[request.command].verb)
    started = time.perf_counter()
    from mmx.device import placed  # from here on it is slow: torch and the models
    from mmx.translate.load import load

    rank, world = share()
    settings = request.settings
    translator = load(request.command, **vars(request.models), **settings.placement)
    where = placed(settings.device, settings.dtype)
    talk.note(f"models ready in {time.perf_counter() - started:.1f} s, {where.device} {where.name}: {where.reason}")
    if translator.notice:
        talk.note(translator.notice)
    _translate_all(translator, request, groups[rank::world], talk)


def _translate_all(translator: Translator, request: Request, groups: list[Group], talk: Talk) -> None:
    """Every group, in turn. Raises the error of the only one, those that the others would meet, too, and PartialFailure
    in the end.
    """
    from mmx.translate.job import Given

    extras = ((Source(Path(extra.path), Path(extra.path)), extra) for extra in request.extras)
    blended = tuple(Given(source.name, source.read(), extra.role, extra.weight) for source, extra in extras)
    failures: list[MmxError] = []
    ledger = Ledger(Path(str(request.output.output))) if request.output.resume else None
    for group in groups:
        try:
            _translate_one(translator, request, group, blended, ledger=ledger, talk=talk)
        except Exception as error:  # whatever is wrong with one input, the others are translated
            if os.environ.get("MMX_DEBUG") == "1":
                raise
            failure = error if isinstance(error, MmxError) else unexpected(error, group[0][0].name)
            if len(groups) == 1 or isinstance(error, ENDING):
                raise failure from None
            failures.append(failure)
            talk.failed(group[0], failure)
    if failures:
        raise PartialFailure(f"{len(failures)} of {len(groups)} inputs failed; the others were written")


def _translate_one(
    translator: Translator,
    request: Request,
    group: Group,
    blended: tuple[Given, ...],
    *,
    ledger: Ledger | None,
    talk: Talk,
) -> None:
    from mmx.translate.job import Given, Job, run

    sources, targets = group
    given = tuple(Given(source.name, source.read(), is_text=isinstance(source, Text)) for source in sources)
    indices = tuple(range(request.output.num))
    job = Job(given + blended, request.settings, indices, request.layout, request.command)
    paths = [target.path for target in targets]
    key = job_digest(job, translator) if ledger else ""
    if ledger and ledger.has(key, paths):
        talk.note(f"{sources[0].name}: already done")
        return
    done = run(translator, job)
    _write(done, targets, request.drawing)
    if ledger:
        ledger.add(key, paths)
    talk.done(job, done, targets)


def _write(done: Done, targets: list[Target], drawing: Path | None) -> None:
    for target, artifact in zip(targets, done.artifacts, strict=True):
        target.write(artifact.data)
        if drawing is not None:
            _draw(artifact.data, drawing)


def _draw(data: bytes, path: Path) -> None:
    from mmx.media.audio import read_audio
    from mmx.media.image import png_bytes
    from mmx.media.show import draw_sound

    Target(path).write(png_bytes(draw_sound(read_audio(data, sample_rate=None))))
