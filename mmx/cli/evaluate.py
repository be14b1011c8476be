"""`mmx eval`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from mmx.cli.takes import takes
from mmx.errors import UsageError
from mmx.extras import require
from mmx.network import Network
from mmx.options import Device, Json, Models
from mmx.recipes.base import Measuring, TaskName, existing
from mmx.tasks import Task, find
from mmx.tasks import task as find_task

SPACE, CAPTION = "space", "caption"  # in the place of a task


@dataclass(frozen=True)
class Reporting:
    """Where the tables go."""

    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="REPORT",
            show_default=False,
            help="The report's folder; its judge is trained once and kept.",
        ),
    ]
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write the tables into the bridge's model card, too; for a starter or a bridge from the hub into "
            "REPORT/README.md.",
        ),
    ] = False


@dataclass(frozen=True)
class Guided:
    """What is measured where nothing is translated."""

    lm: Annotated[
        Optional[str],
        typer.Option(
            metavar="FOLDER", show_default=False, help="caption: the language model that writes. Default: the starter."
        ),
    ] = None


@takes
def evaluate(
    name: TaskName,
    report: Reporting,
    measuring: Measuring,
    models: Models,
    guided: Guided,
    where: Device,
    network: Network,
    saying: Json,
) -> None:
    """Measure a bridge and its decoder on data that they have not seen.

    sound2img, voice2face: naming, a judge on the pictures, FID and KID, retrieval, distance to the training photos.
    img2speech: what a recogniser hears, word errors, mel-cepstral distortion, unit BLEU. Pairs without labels (folders,
    manifests): retrieval, likeness to the target, FID and KID, by the decoder's frozen teacher; of speech likeness to
    the target's units, and what a recogniser hears in both. space: the joint space of --decoder: naming, retrieval in
    all directions (of edge drawings, too, with a --bridge from them), places in mosaics of photos. caption: how often
    the right thing is named, and perplexity, by --lm in the space of --decoder. Each table has an oracle row and a
    random row. edit: whether age and gender of faces move as asked, and all else stays. Writes REPORT/metrics.json and
    REPORT/report.html, one page with inputs and outputs side by side.
    """
    if guided.lm is not None and name.task != CAPTION:
        raise UsageError(f"--lm {guided.lm}: {name.task} writes nothing", hint="mmx eval caption")
    if name.task == SPACE:
        return _evaluate_space(report, measuring, models, where, saying)
    if name.task == CAPTION:
        return _evaluate_captions(guided, report, measuring, models=models, where=where, saying=saying)
    row = find_task(name.task, having="protocol")
    if report.card and models.bridge in row.by_words:
        raise UsageError(f"--card: --bridge {models.bridge} is not trained, and has no card", hint="leave --card out")
    protocol = _protocol(row, measuring.data)
    require("mmx eval", *row.measured_with)
    from mmx.translate.load import load  # from here on it is slow: torch and the models

    translator = load(name.task, **vars(models), device=where.device)
    about = {"task": name.task, "split": measuring.split}
    about |= {role: at.sha256 for role, at in translator.models.items()}
    measuring = replace(measuring, judge=measuring.judge or report.output / "judge")
    result = find(protocol)(translator, measuring).write(report.output, about)
    if report.card:
        from mmx.training.card import add_evaluation, add_to_decoder

        if "bridge" in about:
            written = add_evaluation(translator.bridge_at.folder, translator.bridge.config, result, report.output)
        else:
            written = add_to_decoder(translator.decoder_at.folder, result, report.output)
        if not measuring.quiet:
            print(f"{written}: the {'bridge' if 'bridge' in about else 'decoder'}'s card", file=sys.stderr)
    _tell(result, report, measuring, saying)


def _evaluate_space(report: Reporting, measuring: Measuring, models: Models, where: Device, saying: Json) -> None:
    """The joint space of --decoder, with the bridge of --bridge beside the starter's. Raises UsageError, InputError."""
    existing(measuring.data)
    if models.encoder is not None:
        raise UsageError(f"--encoder {models.encoder}: a space has none", hint="leave it out")
    from mmx.evaluation.space import measure  # from here on it is slow: torch and the models
    from mmx.spaces.load import load_space

    space = load_space(models.decoder, bridge=models.bridge, device=where.device)
    result = measure(space, measuring).write(report.output, {"task": SPACE, "split": measuring.split})
    if report.card:
        from mmx.models.store import locate
        from mmx.training.card import add_to_decoder

        written = add_to_decoder(locate(models.decoder, "sound2img", "decoder").folder, result, report.output)
        if not measuring.quiet:
            print(f"{written}: the decoder's card", file=sys.stderr)
    _tell(result, report, measuring, saying)


def _evaluate_captions(
    guided: Guided, report: Reporting, measuring: Measuring, models: Models, where: Device, saying: Json
) -> None:
    """Captions of labelled photos and sounds. Raises UsageError, InputError, ModelError."""
    data = existing(measuring.data)
    if data is None or models.encoder is not None:
        raise UsageError("captions are measured on a folder of shards, and by no --encoder")
    from mmx.device import placed  # from here on it is slow: torch and the models
    from mmx.evaluation.captions import Protocol, measure
    from mmx.guided.caption import Guidance
    from mmx.guided.language import load_language_model
    from mmx.spaces.load import load_space

    space = load_space(models.decoder, bridge=models.bridge, device=where.device)
    lm = load_language_model(guided.lm, placed(where.device, "auto"))
    protocol = Protocol(space, lm, data, Guidance(), quiet=measuring.quiet)
    about = {"task": CAPTION, "split": measuring.split, "lm": lm.at.sha256, "space": space.fingerprint}
    result = measure(protocol, measuring.split, measuring.limit).write(report.output, about)
    if report.card:
        from mmx.training.card import add_captions

        written = add_captions(lm.at.folder, result, report.output)
        if not measuring.quiet:
            print(f"{written}: the language model's card", file=sys.stderr)
    _tell(result, report, measuring, saying)


def _tell(result: dict[str, Any], report: Reporting, measuring: Measuring, saying: Json) -> None:
    if saying.as_json:
        print(json.dumps(result))
    else:
        _print(result)
    if not measuring.quiet:
        print(f"{report.output}: metrics.json, report.html", file=sys.stderr)


def _protocol(row: Task, data: str) -> str:
    """What measures: the task's own for labelled shards, or that of pairs. Raises UsageError."""
    folder = existing(data)
    labelled = folder and folder.is_dir() and any(folder.glob(f"{row.source.prefix}-*.tar"))
    if not labelled and row.pairs_protocol is None:
        raise UsageError(f"{data}: no {row.source.prefix}-*.tar, by which {row.name} is measured")
    return str(row.protocol if labelled else row.pairs_protocol)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmx.evaluation.report import columns_of

    console = Console()
    for name in (name for name, table in result.items() if isinstance(table, dict)):
        columns = columns_of(result[name])
        table = Table("", *columns, title=f"{name} ({result['split']})")
        for row, values in result[name].items():
            table.add_row(row, *(f"{values[column]:.4g}" if column in values else "" for column in columns))
        console.print(table)
