"""`mmx help`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Optional

import typer

from mmx.errors import UsageError


def help_(
    command: Annotated[
        Optional[str], typer.Argument(metavar="[COMMAND]", show_default=False, help="Default: all of them.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, with every option in a table.")] = False,
) -> None:
    """Print the help of a command, or of all: for pipes, pages and search."""
    from mmx.cli.commands import COMMANDS

    if command is not None and command not in COMMANDS:
        raise UsageError(f"{command}: no such command", hint="mmx --help lists them")
    names = [command] if command else list(COMMANDS)
    print("\n".join(line for name in names for line in (_page(name) if markdown else _plain(name))))


def _commands(name: str) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group, with their whole names."""
    from mmx.cli.group import load_command

    found = load_command(name)
    if not hasattr(found, "commands"):
        yield name, found
        return
    for inner, command in found.commands.items():
        yield f"{name} {inner}", command


def _plain(name: str) -> Iterator[str]:
    for whole, command in _commands(name):
        yield f"mmx {whole}: {(command.help or '').partition(chr(10) * 2)[0].replace(chr(10), ' ')}"


def _page(name: str) -> Iterator[str]:
    for whole, command in _commands(name):
        yield f"## mmx {whole}\n\n{(command.help or '').strip()}\n"
        rows = [_row(option) for option in command.params]
        if rows:
            yield "| | default | |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _row(option: Any) -> str:
    """An option or an argument as a row of a table."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    named = names if option.opts[0].startswith("-") else f"`{option.metavar or option.name.upper()}`"
    silent = option.required or callable(option.default) or option.default in (None, False, [], ())
    value = "" if silent else option.default
    about = (getattr(option, "help", None) or "").replace("\\[", "[").replace("|", "\\|").replace("\n", " ")
    return f"| {named} | {value} | {about} |"
