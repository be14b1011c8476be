"""`mmx eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from mmx.cli.options import BridgeOption, DecoderOption, Device, EncoderOption, Json, Quiet, Seed
from mmx.errors import UsageError
from mmx.tasks import Task, find
from mmx.tasks import task as find_task


def evaluate(
    task: Annotated[str, typer.Argument(help="sound2img, voice2face or img2speech.", show_default=False)],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            show_default=False,
            help="A folder, a .jsonl or .csv manifest, or a URL of shards, as train-bridge takes them.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="REPORT",
            show_default=False,
            help="The report's folder; its judge is trained once and kept.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Which split to measure.")] = "val",
    limit: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            show_default=False,
            help="Items a class in each row. Default: 25 a concept, 100 a gender, 5 photos a name.",
        ),
    ] = None,
    judge_steps: Annotated[int, typer.Option(min=1, help="Steps of the judge's training.")] = 1500,
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    encoder: EncoderOption = None,
    seed: Seed = 0,
    judge: Annotated[
        Optional[Path], typer.Option(metavar="DIR", show_default=False, help="Another report's judge/ to use.")
    ] = None,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write the tables into the bridge's model card, too; of a starter's or the hub's into REPORT/README.md.",
        ),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bridge and its decoder on data that they have not seen.

    sound2img, voice2face: naming, a judge on the pictures, FID and KID, retrieval, distance to the training photos. img2speech: what a
    recogniser hears, word errors, mel-cepstral distortion, unit BLEU. Of pairs without labels (folders, manifests): retrieval, likeness to the
    target, FID and KID, by the decoder's frozen teacher. Each table has an oracle row and a random row. Writes
    REPORT/metrics.json and REPORT/report.html, one page with inputs and outputs side by side.
    """
    protocol = _protocol(find_task(task, having="protocol"), data)
    from mmx.evaluation.report import Options
    from mmx.translate.load import load

    translator = load(task, bridge=bridge, decoder=decoder, encoder=encoder, device=device)
    options = Options(data, split, judge or output / "judge", limit, judge_steps, seed, quiet)
    about = {"task": task, "split": split} | {role: at.sha256 for role, at in translator.models.items()}
    result = find(protocol)(translator, options).write(output, about)
    if card:
        from mmx.training.card import add_evaluation

        written = add_evaluation(translator.bridge_at.folder, translator.bridge.config, result, output)
    if as_json:
        print(json.dumps(result))
    else:
        _print(result)
    if not quiet:
        print(f"{output}: metrics.json, report.html", file=sys.stderr)
        if card:
            print(f"{written}: the bridge's card", file=sys.stderr)


def _protocol(row: Task, data: str) -> str:
    """What measures: the task's own for labelled shards, or that of pairs. Raises UsageError."""
    folder = Path(data)
    remote = any(sign in data for sign in ("://", "{", "*"))
    if not remote and not folder.exists():
        raise UsageError(f"--data {data}: no such file or folder")
    if row.protocol and not remote and folder.is_dir() and any(folder.glob(f"{row.source.prefix}-*.tar")):
        return row.protocol
    if row.pairs_protocol is None:
        shards = f"{row.source.prefix}-*.tar and {row.target.prefix}-*.tar"
        raise UsageError(f"--data {data}: {row.name} is measured on {shards}")
    return row.pairs_protocol


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
