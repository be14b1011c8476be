"""`mmx sound2img`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mmx.cli.options import (
    BridgeOption,
    DecoderOption,
    Device,
    Dtype,
    Guidance,
    Inputs,
    Json,
    Num,
    Output,
    Overwrite,
    Quiet,
    Seed,
    Steps,
)
from mmx.errors import MmxError, PartialFailure, UsageError
from mmx.media.files import Source, Target, expand, plan

if TYPE_CHECKING:
    from mmx.jobs import Done, Given, Job, Settings
    from mmx.translate import Translator


def sound2img(
    inputs: Inputs,
    output: Output = None,
    num: Num = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Annotated[
        Optional[int],
        typer.Option("--size", min=8, max=4096, show_default=False, help="Pixels a side. Default: the decoder's."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="One contact sheet of the results instead of a file each.")
    ] = False,
    gain: Annotated[
        float,
        typer.Option(
            "--gain",
            min=-60,
            max=60,
            metavar="dB",
            help="Make the input louder or quieter; with --mix it moves the balance.",
        ),
    ] = 0.0,
    mix: Annotated[
        Optional[list[str]],
        typer.Option("--mix", metavar="FILE[:weight]", show_default=False, help="Hear another sound at the same time."),
    ] = None,
    interpolate: Annotated[
        Optional[str],
        typer.Option(
            "--interpolate",
            metavar="FILE",
            show_default=False,
            help="Walk to another sound: a strip (.png) or an animation (.gif).",
        ),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=2, max=500, help="Pictures on that walk.")] = 8,
    image: Annotated[
        Optional[str],
        typer.Option(
            "--image",
            metavar="FILE[:weight]",
            show_default=False,
            help="A picture to edit toward the sound; weight 1 keeps it.",
        ),
    ] = None,
    start: Annotated[
        Optional[float],
        typer.Option(
            "--start",
            min=0,
            metavar="s",
            show_default=False,
            help="Where in the input to begin. Default: its loudest stretch.",
        ),
    ] = None,
    duration: Annotated[
        Optional[float],
        typer.Option("--duration", min=0.01, metavar="s", show_default=False, help="How much of the input to hear."),
    ] = None,
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn sounds into pictures of what makes them.

    mmx sound2img bark.wav -o dog.png

    mmx sound2img recordings/ -o pictures/ -n 4

    cat bark.wav | mmx sound2img - -o - > dog.png
    """
    layout = _layout(output, grid=grid, interpolate=interpolate)
    sources = expand(inputs, "sound")
    one_sheet = layout == "grid" and len(sources) > 1 and _names_a_file(output)
    count = 1 if layout != "single" else num
    targets = plan(sources[:1] if one_sheet else sources, output, count, ".gif" if layout == "gif" else ".png")
    for target in (target for group in targets for target in group):
        target.check(overwrite=overwrite)
    if as_json and output == "-":
        raise UsageError("--json and the picture both want stdout", hint="give -o FILE")
    blended = _blended(mix or [], interpolate, image)
    for name in (bridge, decoder):
        if name and not name.startswith("hf-hub:") and name != "starter" and not Path(name).is_dir():
            raise UsageError(f"{name}: no such model folder")
    from mmx.jobs import Settings  # from here on it is slow: torch and the models

    settings = Settings(seed, steps, guidance, size, gain, start, duration, frames, device, dtype)
    talk = _Talk(quiet=quiet, as_json=as_json)
    started = time.perf_counter()
    from mmx.translate import load

    translator = load("sound2img", bridge=bridge, decoder=decoder, device=device, dtype=dtype)
    talk.note(f"models ready in {time.perf_counter() - started:.1f} s")
    groups = [(sources, targets[0])] if one_sheet else [([s], t) for s, t in zip(sources, targets, strict=True)]
    _run_all(translator, groups, blended, settings, tuple(range(num)), layout, talk)


def _layout(output: str | None, *, grid: bool, interpolate: str | None) -> str:
    gif = output is not None and output.lower().endswith(".gif")
    if gif and interpolate is None:
        raise UsageError(
            "a .gif is an animation, and only --interpolate makes one", hint="write .png, or give --interpolate FILE"
        )
    if interpolate is not None:
        return "gif" if gif else "strip"
    return "grid" if grid else "single"


def _names_a_file(output: str | None) -> bool:
    return output is not None and (output == "-" or (Path(output).suffix != "" and not Path(output).is_dir()))


def _weighted(text: str, default: float) -> tuple[str, float]:
    """FILE[:weight] → both. A colon that is part of an existing file's name is left alone."""
    head, colon, tail = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, default
    try:
        weight = float(tail)
    except ValueError:
        return text, default
    if not 0 <= weight <= 1:
        raise UsageError(f"{text}: a weight lies between 0 and 1")
    return head, weight


@dataclass(frozen=True)
class _Extra:
    path: str
    role: str
    weight: float


def _blended(mix: list[str], interpolate: str | None, image: str | None) -> list[_Extra]:
    extras = [
        _Extra(*_split, weight) for text in mix for path, weight in [_weighted(text, 0.5)] for _split in [(path, "mix")]
    ]
    if interpolate is not None:
        extras.append(_Extra(interpolate, "interpolate", 1.0))
    if image is not None:
        path, weight = _weighted(image, 0.5)
        extras.append(_Extra(path, "image", weight))
    for extra in extras:
        if not Path(extra.path).is_file():
            raise UsageError(f"--{extra.role} {extra.path}: no such file")
    return extras


class _Talk:
    """What a command says: notes on stderr, or JSON lines on stdout."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.quiet, self.as_json = quiet, as_json

    def note(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def done(self, job: Job, done: Done, targets: list[Target]) -> None:
        for text in done.notes:
            self.note(text)
        sources = [given.name for given in job.of("source")]
        for name, heard in zip(sources, done.heard, strict=True):
            self.note(f"{name}: heard: {', '.join(f'{label} {share:.2f}' for label, share in heard)}")
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
    groups: list[tuple[list[Source], list[Target]]],
    extras: list[_Extra],
    settings: Settings,
    indices: tuple[int, ...],
    layout: str,
    talk: _Talk,
) -> None:
    from mmx.jobs import Given, Job, run

    blended = tuple(Given(e.path, Path(e.path).read_bytes(), e.role, e.weight) for e in extras)
    failures: list[MmxError] = []
    for sources, targets in groups:
        try:
            given: tuple[Given, ...] = tuple(Given(source.name, source.read()) for source in sources)
            job = Job(given + blended, settings, indices, layout)
            done = run(translator, job)
            for target, artifact in zip(targets, done.artifacts, strict=True):
                target.write(artifact.data)
            talk.done(job, done, targets)
        except MmxError as error:
            if len(groups) == 1 or error.exit_code in (2, 4):
                raise
            failures.append(error)
            talk.failed(sources, error)
    if failures:
        raise PartialFailure(f"{len(failures)} of {len(groups)} inputs failed; the others were written")
