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
    task: Annotated[str, typer.Argument(help="sound2img or voice2face.", show_default=False)],
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
    limit: Annotated[
        Optional[int],
        typer.Option(
            min=1, show_default=False, help="Pictures a class in each row. Default: 25 a concept, 100 a gender."
        ),
    ] = None,
    judge_steps: Annotated[int, typer.Option(min=1, help="Steps of the judge's training.")] = 1500,
    bridge: BridgeOption = None,
    decoder: DecoderOption = None,
    judge: Annotated[
        Optional[Path], typer.Option(metavar="DIR", show_default=False, help="Another report's judge/ to use.")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Write the tables into the bridge's model card, too.")] = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bridge and its decoder: naming, a judge on the pictures, FID and KID, distance to the training photos.

    Each table has an oracle row (real photos' embeddings) and a random row. Writes REPORT/metrics.json and pictures to look at.
    """
    if task not in ("sound2img", "voice2face"):
        raise UsageError(f"no protocol is called {task}", hint="there are: sound2img, voice2face")
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder")
    from mmx.translate import load

    translator = load(task, bridge=bridge, decoder=decoder, device=device)
    measure = _sound2img if task == "sound2img" else _voice2face
    options = {"limit": limit} if limit else {}
    result = {
        "schema": "mmx.eval/1",
        "task": task,
        "split": split,
        "bridge": translator.bridge_at.sha256,
        "decoder": translator.decoder_at.sha256,
    } | measure(translator, data, split, judge or output / "judge", judge_steps, quiet, output / "pictures", options)
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(json.dumps(result, indent=1), encoding="utf8")
    if card:
        from mmx.training.card import add_evaluation

        add_evaluation(translator.bridge_at.folder, translator.bridge.config, result)
    if as_json:
        print(json.dumps(result))
    else:
        _print(result)
    if not quiet:
        print(f"{output}: metrics.json, pictures/", file=sys.stderr)


def _sound2img(
    translator: Any, data: Path, split: str, judge: Path, steps: int, quiet: bool, pictures: Path, options: dict
) -> dict[str, Any]:
    from mmx.evaluation.judge import train_judge
    from mmx.evaluation.sound2img import evaluate as measure
    from mmx.training.data import load_photos, load_sounds

    labels = list(translator.bridge.config.labels)
    if not labels:
        raise UsageError(
            "this bridge has no labels, so there is nothing to name",
            hint="train it on data with a `concept` in each .json",
        )
    photos, sounds = load_photos(data, translator.decoder.teacher.net.image_size), load_sounds(data).split(split)
    if not len(sounds) or not len(photos.split(split)):
        raise UsageError(f"--split {split}: the data has no such split")
    referee = train_judge(photos, labels, judge, max_steps=steps, quiet=quiet)
    return measure(
        translator, sounds, photos.split(split), photos.split("train"), referee, pictures_to=pictures, **options
    )


def _voice2face(
    translator: Any, data: Path, split: str, judge: Path, steps: int, quiet: bool, pictures: Path, options: dict
) -> dict[str, Any]:
    from mmx.evaluation.judge import train_judge
    from mmx.evaluation.voice2face import evaluate as measure
    from mmx.nets.face import GENDERS
    from mmx.training.data import load_photos, load_sounds

    photos = load_photos(data, translator.decoder.teacher.net.image_size, "faces")
    voices = load_sounds(data, "voices").split(split)
    if not len(voices) or not len(photos.split(split)):
        raise UsageError(f"--split {split}: the data has no such split")
    referee = train_judge(photos, GENDERS, judge, key="gender", max_steps=steps, quiet=quiet)
    return measure(
        translator, voices, photos.split(split), photos.split("train"), referee, pictures_to=pictures, **options
    )


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name in (name for name, table in result.items() if isinstance(table, dict)):
        columns = list(next(iter(result[name].values())))
        table = Table("", *columns, title=f"{name} ({result['split']})")
        for row, values in result[name].items():
            table.add_row(row, *(f"{values[column]:.4g}" for column in columns))
        console.print(table)
