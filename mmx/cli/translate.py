"""What the translating commands share: where results go, what is said, and that one bad input does not stop the rest."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmx.cli.ledger import Ledger, job_digest, share
from mmx.errors import MmxError, PartialFailure, UsageError
from mmx.media.files import Source, Target, Text, names_a_file, plan
from mmx.models.store import missing
from mmx.tasks import TASKS

if TYPE_CHECKING:
    from mmx.translate.base import Translator
    from mmx.translate.job import Done, Job, Settings


@dataclass(frozen=True)
class Extra:
    """A file that is blended in: its role is the option's name."""

    path: str
    role: str
    weight: float = 1.0


@dataclass(frozen=True)
class Request:
    """A translating command's line, but for the settings that change bytes."""

    command: str
    sources: list[Source]
    output: str | None
    indices: tuple[int, ...] = (0,)
    layout: str = "single"
    suffix: str = ".png"
    together: bool = False  # all sources make one result, or one sheet
    extras: tuple[Extra, ...] = ()
    bridge: str | None = None
    decoder: str | None = None
    encoder: str | None = None
    as_json: bool = False
    quiet: bool = False
    overwrite: bool = False
    resume: bool = False
    drawing: Path | None = None  # where a picture of the one spoken result goes

    def groups(self) -> list[tuple[list[Source], list[Target]]]:
        """Sources that are translated together, and where their results go. Raises UsageError before any work."""
        count = 1 if self.layout != "single" else len(self.indices)
        sources = self.sources[:1] if self.together else self.sources
        targets = plan(sources, self.output, count, self.suffix)
        for target in (target for group in targets for target in group):
            target.check(overwrite=self.overwrite or self.resume)
        if self.resume and (self.output is None or names_a_file(self.output)):
            raise UsageError("--resume is for a folder of results", hint="give -o FOLDER")
        if self.as_json and self.output == "-":
            raise UsageError("--json and the result both want stdout", hint="give -o FILE")
        for name in (self.bridge, self.decoder, self.encoder):
            if missing(name):
                raise UsageError(f"{missing(name)}: no such model folder")
        if self.together:
            return [(self.sources, targets[0])]
        return [([source], own) for source, own in zip(self.sources, targets, strict=True)]


def carry_out(request: Request, groups: list[tuple[list[Source], list[Target]]], settings: Settings) -> None:
    """Load the models once and translate every group. Raises the error of a single group, PartialFailure of several."""
    talk = _Talk(request)
    started = time.perf_counter()
    from mmx.device import placed
    from mmx.translate.load import load

    rank, world = share()
    groups = groups[rank::world]
    translator = load(
        request.command,
        bridge=request.bridge,
        decoder=request.decoder,
        encoder=request.encoder,
        device=settings.device,
        dtype=settings.dtype,
        low_memory=settings.low_memory,
        compile=settings.compile,
    )
    where = placed(settings.device, settings.dtype)
    talk.note(f"models ready in {time.perf_counter() - started:.1f} s, {where.device} {where.name}: {where.reason}")
    if translator.notice:
        talk.note(translator.notice)
    _run_all(translator, request, groups, settings, talk)


class _Talk:
    """What a command says: notes on stderr, or JSON lines on stdout."""

    def __init__(self, request: Request) -> None:
        self.quiet, self.as_json, self.verb = request.quiet, request.as_json, TASKS[request.command].verb

    def note(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def done(self, job: Job, done: Done, targets: list[Target]) -> None:
        for text in done.notes:
            self.note(text)
        sources = [given.name for given in job.of("source")]
        names = [", ".join(sources)] if job.settings.average else sources
        for name, heard in zip(names, done.heard, strict=True) if any(done.heard) else ():
            self.note(f"{name}: {self.verb}: {', '.join(f'{label} {share:.2f}' for label, share in heard)}")
        stages = ", ".join(f"{stage} {took:.2f} s" for stage, took in done.seconds.items())
        self.note(f"{', '.join(str(target.path or 'stdout') for target in targets)}: {stages}")
        if self.as_json:
            print(
                json.dumps(
                    {
                        "schema": "mmx.result/1",
                        "command": job.command,
                        "inputs": sources,
                        "outputs": [str(target.path or "-") for target in targets],
                        "seed": job.settings.seed,
                        "heard": [[{"label": label, "share": share} for label, share in heard] for heard in done.heard],
                        "seconds": done.seconds,
                        "notes": done.notes,
                    }
                ),
                flush=True,
            )

    def failed(self, sources: list[Source], error: MmxError) -> None:
        from mmx.cli.app import report

        if self.as_json:
            print(
                json.dumps({"schema": "mmx.error/1", "inputs": [s.name for s in sources]} | error.as_dict()), flush=True
            )
        else:
            report(error, as_json=False)


def _run_all(
    translator: Translator,
    request: Request,
    groups: list[tuple[list[Source], list[Target]]],
    settings: Settings,
    talk: _Talk,
) -> None:
    from mmx.translate.job import Given, Job, run

    blended = tuple(Given(e.path, Path(e.path).read_bytes(), e.role, e.weight) for e in request.extras)
    failures: list[MmxError] = []
    ledger = Ledger(Path(request.output)) if request.resume else None
    for sources, targets in groups:
        try:
            given = tuple(Given(source.name, source.read(), is_text=isinstance(source, Text)) for source in sources)
            job = Job(given + blended, settings, request.indices, request.layout, request.command)
            paths = [target.path for target in targets]
            key = job_digest(job, translator) if ledger else ""
            if ledger and ledger.has(key, paths):
                talk.note(f"{sources[0].name}: already done")
                continue
            done = run(translator, job)
            for target, artifact in zip(targets, done.artifacts, strict=True):
                target.write(artifact.data)
                if request.drawing is not None:
                    _draw(artifact.data, request.drawing)
            if ledger:
                ledger.add(key, paths)
            talk.done(job, done, targets)
        except MmxError as error:
            if len(groups) == 1 or error.exit_code in (2, 4):
                raise
            failures.append(error)
            talk.failed(sources, error)
    if failures:
        raise PartialFailure(f"{len(failures)} of {len(groups)} inputs failed; the others were written")


def _draw(data: bytes, path: Path) -> None:
    from mmx.media.audio import read_audio
    from mmx.media.image import png_bytes
    from mmx.media.show import draw_sound

    Target(path).write(png_bytes(draw_sound(read_audio(data, sample_rate=None))))
