"""The command line as typer reads it: a group that imports a command's module when it is asked for, not to list it."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

import mmx
from mmx.cli.commands import COMMANDS
from mmx.cli.takes import for_typer
from mmx.tasks import find


def load_command(name: str) -> Any:
    """A command with its options, or the group of its commands; its module is imported now."""
    found = find(COMMANDS[name].where)
    if isinstance(found, typer.Typer):
        for inner in found.registered_commands:
            for_typer(inner.callback)
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name)(for_typer(found))
    return get_command(alone)


class Commands(TyperGroup):
    """The commands by their rows, each loaded when a line names it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, row in COMMANDS.items():
            self.add_command(TyperCommand(name, help=row.line, rich_help_panel=row.panel))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """As of every group, with the defaults that the user chose. Raises a usage error for a name that no row has."""
        name, listed, rest = super().resolve_command(ctx, args)
        command = listed and load_command(str(name))
        if command:
            ctx.default_map = {name: _chosen(str(name), command)}
        return name, command, rest


def _chosen(name: str, command: Any) -> dict[str, Any]:
    """What the user chose once of a command's options, or of those of each command of a group. Raises UsageError."""
    from mmx.cli.settings import defaults_for

    inner = getattr(command, "commands", None)
    if inner is None:
        return defaults_for(name, [option.name for option in command.params])
    return {own: defaults_for(name, [option.name for option in one.params]) for own, one in inner.items()}


app = typer.Typer(
    name="mmx",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn one modality into another: a sound into a picture, a voice into a face, a picture into speech.\n\n"
    "Every command works offline right after install, on small starter models.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"mmx {mmx.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        Optional[bool], typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    """Options before the command."""
