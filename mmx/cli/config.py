"""`mmx config`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Optional

import typer

from mmx.cli.options import Json, Quiet
from mmx.cli.settings import KEYS, config_file, key_of, read_file, settings, write_file
from mmx.errors import UsageError
from mmx.media.names import printable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Choose defaults once: show, set, path.",
)


@app.command()
def show(as_json: Json = False) -> None:
    """Every setting, its value, and where that comes from: the file, a MMX_* variable, or nobody.

    What a command's own line says is stronger than both.
    """
    found = settings()
    if as_json:
        rows = {name: {"value": one.value, "origin": one.origin} for name, one in found.items()}
        print(json.dumps({"schema": "mmx.config/1", "file": str(config_file()), "settings": rows}))
        return
    wide = max(map(len, KEYS))
    for name, one in found.items():
        value = "-" if one.value is None else json.dumps(one.value) if one.value == "" else str(one.value)
        print(printable(f"{name:<{wide}}  {value:<12}  {one.origin:<8}  {KEYS[name].about}"))


@app.command()
def set(
    key: Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="One that mmx config show lists.")],
    value: Annotated[Optional[str], typer.Argument(metavar="VALUE", show_default=False)] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Leave it to the default again.")] = False,
    quiet: Quiet = False,
) -> None:
    """Set a default in the file.

    mmx config set server auto

    mmx config set device --unset
    """
    key = key.replace("-", "_")
    kind, there = key_of(key), read_file()
    if (value is None) != unset:
        raise UsageError("give a value, or --unset", hint=f"mmx config set {key} VALUE")
    if unset:
        there.pop(key, None)
    else:
        there[key] = kind.read(value, key)
    path = write_file(there)
    if not quiet:
        print(f"{printable(str(path))}: {key} {'unset' if unset else f'= {there[key]}'}", file=sys.stderr)


@app.command()
def path() -> None:
    """Where the file is, whether or not it is there."""
    print(printable(str(config_file())))
