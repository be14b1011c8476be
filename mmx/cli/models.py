"""`mmx models` and `mmx doctor`: what is there, where it is, and whether it is whole."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmx.cli.options import Json, Quiet
from mmx.errors import ModelError, UsageError

app = typer.Typer(no_args_is_help=True, help="Look after models: ls, pull, path, verify, rm, card.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", show_default=False, help="A name that ls shows, starter/NAME, or ORG/REPO[@REVISION]."
    ),
]


@app.callback()
def _root() -> None:
    """Look after models."""


def _starters() -> list[Path]:
    from mmx.models.store import assets

    return sorted(path for path in (assets() / "starter").iterdir() if path.is_dir())


def _folders(name: str) -> list[Path]:
    """Where a model is. Raises ModelError, NetworkError where it is not on disk."""
    from mmx.models.hub import snapshot
    from mmx.models.known import repos_of
    from mmx.models.store import assets

    if name.startswith("starter/"):
        folder = assets() / name
        if not folder.is_dir():
            raise ModelError(f"{name}: this version ships no such model", hint="mmx models ls")
        return [folder]
    if Path(name).is_dir():
        return [Path(name)]
    os.environ["HF_HUB_OFFLINE"] = "1"  # looking must not fetch
    return [snapshot(repo) for repo in repos_of(name)]


def _defaults(folder: Path) -> dict[str, object]:
    """What a starter decoder says of its defaults."""
    path = folder / "mmx.json"
    said = json.loads(path.read_text(encoding="utf8"))["defaults"] if path.exists() else {}
    return {"resolution": said.get("size"), "steps": said.get("steps"), "guidance": said.get("guidance")}


def _rows() -> list[dict[str, Any]]:
    """What ls shows: the starters, the models that are known by name, and what else is in the hub's cache."""
    from mmx.models.hub import is_here, on_disk
    from mmx.models.known import KNOWN

    disk = {entry.repo: entry for entry in on_disk()}
    rows: list[dict[str, Any]] = []
    for folder in _starters():
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        about = {"licence": "research only: see its card", "commercial": False, "gpu_gigabytes": 0.5}
        own = {"name": f"starter/{folder.name}", "task": folder.name, "on_disk": True, "bytes": size}
        rows.append(own | about | _defaults(folder))
    for known in KNOWN:
        size = sum(disk[repo.name].bytes for repo in known.repos if repo.name in disk)
        own = {"name": known.name, "task": known.task, "on_disk": is_here(known.repos), "bytes": size}
        about = {"licence": known.licence, "commercial": known.commercial, "gpu_gigabytes": known.gigabytes}
        rows.append(own | about | {"resolution": known.resolution, "steps": known.steps, "guidance": known.guidance})
    shown = {repo.name for known in KNOWN for repo in known.repos}  # several models share a repository
    nothing = dict.fromkeys(("commercial", "gpu_gigabytes", "resolution", "steps", "guidance"))
    for entry in (entry for repo, entry in disk.items() if repo not in shown):
        own = {"name": entry.repo, "task": None, "on_disk": True, "bytes": entry.bytes, "licence": "see its card"}
        rows.append(own | nothing)
    return rows


@app.command("ls")
def ls(as_json: Json = False) -> None:
    """What mmx knows by name, what is on disk, how large it is, its licence, and what may not be used commercially."""
    rows = _rows()
    if as_json:
        for row in rows:
            print(json.dumps({"schema": "mmx.model/1"} | row))
        return
    from rich.console import Console
    from rich.table import Column, Table

    heads = ("task", "on disk", "licence", "commercial use", "GPU memory", "resolution", "steps", "guidance")
    table = Table(Column("model", no_wrap=True), *heads)
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB" if row["on_disk"] else "no"
        may = {True: "yes", False: "no", None: "?"}[row["commercial"]]
        memory = "" if row["gpu_gigabytes"] is None else f"{row['gpu_gigabytes']} GB"
        numbers = [str(row[key] or "") for key in ("resolution", "steps", "guidance")]
        table.add_row(*[row["name"], row["task"] or "", size, row["licence"], may, memory, *numbers])
    Console().print(table)


@app.command("pull")
def pull_model(model: Name, quiet: Quiet = False) -> None:
    """Fetch what is read of a model: safetensors and configs, pinned by commit, every file checked.

    mmx models pull kandinsky-2.2

    A pull that was stopped goes on.
    """
    from mmx.cli.preview import counting
    from mmx.models.hub import pull

    with counting(shown=not quiet, of_bytes=True) as told:
        folders = pull(model, told=told)
    for folder in folders:
        print(folder)


@app.command("path")
def path_of(model: Name) -> None:
    """Print where a model is: a line for each of its repositories."""
    for folder in _folders(model):
        print(folder)


@app.command("verify")
def verify_model(model: Name, quiet: Quiet = False) -> None:
    """Hold every file of a model against its published digest."""
    from mmx.models.hub import damaged
    from mmx.models.store import verify

    for folder in _folders(model):
        verify(folder, fresh=True)
        wrong = damaged(folder) if folder.parent.name == "snapshots" else []
        if wrong:
            raise ModelError(
                f"{model}: {wrong[0].relative_to(folder)} is not the published file", hint=f"mmx models pull {model}"
            )
        if not quiet:
            print(f"{folder}: every file is the published one", file=sys.stderr)


@app.command("rm")
def rm(model: Name, quiet: Quiet = False) -> None:
    """Take a model off the disk, but for files that other models which are there read, too."""
    from mmx.models.hub import remove

    if model.startswith("starter/"):
        raise UsageError(f"{model} came with mmx and stays", hint="pip uninstall mmx takes all of it away")
    freed, sharing = remove(model)
    if not quiet:
        kept = f"; what {', '.join(sharing)} also read{'s' if len(sharing) == 1 else ''} stays" if sharing else ""
        print(f"{model}: {freed / 1e6:.0f} MB freed{kept}", file=sys.stderr)


@app.command("card")
def card(model: Name) -> None:
    """Print a model's card."""
    for folder in _folders(model):
        path = folder / "README.md"
        if not path.exists():
            raise ModelError(f"{model} has no card", hint=str(folder))
        print(path.read_text(encoding="utf8"))


def doctor(as_json: Json = False) -> None:
    """Check Python, torch, CUDA, torchaudio, FFmpeg, caches, starter models and the disk, and say what to do."""
    from mmx.models.doctor import checks

    found = checks()
    if as_json:
        for check in found:
            print(json.dumps({"schema": "mmx.doctor/1"} | check.as_dict()))
    else:
        for check in found:
            mark = "ok  " if check.ok else "LOOK"
            print(f"{mark} {check.name}: {check.state}" + (f"\n     {check.advice}" if check.advice else ""))
    if not all(check.ok for check in found):
        raise typer.Exit(4)
