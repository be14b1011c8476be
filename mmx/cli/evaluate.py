"""`mmx eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from mmx.cli.options import BridgeOption, Data, DecoderOption, Device, Json, Quiet
from mmx.errors import UsageError


def evaluate(
    task: Annotated[str, typer.Argument(help="sound2img", show_default=False)],
    data: Data,
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
    limit: Annotated[int, typer.Option(min=1, help="Pictures a concept in each row.")] = 25,
    judge_steps: Annotated[int, typer.Option(min=1, help="Steps of the judge's training.")] = 1500,
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    judge: Annotated[
        Optional[Path], typer.Option(metavar="DIR", show_default=False, help="Another report's judge/ to use.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bridge and its decoder: naming, a judge on the pictures, FID and KID, distance to the training photos.

    Each table has an oracle row (real photos' embeddings) and a random row. Writes REPORT/metrics.json and a grid a concept.
    """
    if task != "sound2img":
        raise UsageError(f"no protocol is called {task}", hint="there is: sound2img")
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder")
    from mmx.evaluation.judge import train_judge
    from mmx.evaluation.sound2img import evaluate as measure
    from mmx.training.data import load_photos, load_sounds
    from mmx.translate import load

    translator = load(task, bridge=bridge, decoder=decoder, device=device)
    labels = list(translator.bridge.config.labels)
    if not labels:
        raise UsageError(
            "this bridge has no labels, so there is nothing to name",
            hint="train it on data with a `concept` in each .json",
        )
    photos, sounds = load_photos(data, translator.decoder.teacher.net.image_size), load_sounds(data).split(split)
    if not len(sounds) or not len(photos.split(split)):
        raise UsageError(f"--split {split}: the data has no such split")
    referee = train_judge(photos, labels, judge or output / "judge", max_steps=judge_steps, quiet=quiet)
    result = measure(
        translator,
        sounds,
        photos.split(split),
        photos.split("train"),
        referee,
        limit=limit,
        pictures_to=output / "pictures",
    )
    result = {
        "schema": "mmx.eval/1",
        "task": task,
        "split": split,
        "bridge": translator.bridge_at.sha256,
        "decoder": translator.decoder_at.sha256,
    } | result
    (output / "metrics.json").write_text(json.dumps(result, indent=1), encoding="utf8")
    if as_json:
        print(json.dumps(result))
    else:
        _print(result)
    if not quiet:
        print(f"{output}: metrics.json, pictures/", file=sys.stderr)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name in ("naming", "pictures", "nearest_training_photo"):
        columns = list(next(iter(result[name].values())))
        table = Table("", *columns, title=f"{name} ({result['split']})")
        for row, values in result[name].items():
            table.add_row(row, *(f"{values[column]:.4g}" for column in columns))
        console.print(table)
