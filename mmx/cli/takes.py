"""Options as dataclasses: a command is given them filled in, and each of their fields is an option."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mmx.declared import Declared


def takes(function: Callable[..., None]) -> Callable[..., None]:
    """A function whose parameters are dataclasses → a command with all of their fields as options. Its `groups` are
    these dataclasses by the names of the parameters."""
    groups = {name: kind for name, kind in get_type_hints(function).items() if name != "return"}

    @wraps(function)
    def command(**given: Any) -> None:
        filled = {
            name: kind(**{option.name: given[option.name] for option in fields(kind)}) for name, kind in groups.items()
        }
        function(**filled)

    command.groups = groups
    return command


def for_typer(command: Callable[..., None]) -> Callable[..., None]:
    """A command, with a signature that typer understands."""
    if hasattr(command, "groups"):
        command.__signature__ = Signature([own for kind in command.groups.values() for own in _parameters(kind)])
    return command


def _parameters(group: type) -> Iterator[Parameter]:
    """The fields of a dataclass as parameters: an Annotated type with what typer needs to know, and the default."""
    types = get_type_hints(group, include_extras=True)
    for option in fields(group):
        default = Parameter.empty if option.default is MISSING else option.default
        if option.default_factory is not MISSING:
            default = option.default_factory()
        annotation = typers(types[option.name])
        yield Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def typers(hint: Any) -> Any:
    """An annotation in whose metadata typer's own declaration stands in the place of ours."""
    if get_origin(hint) is not Annotated or not isinstance(get_args(hint)[1], Declared):
        return hint
    import typer

    kind, ours = get_args(hint)[:2]
    about = {name: value for name, value in vars(ours).items() if name not in ("names", "is_argument")}
    make = typer.Argument if ours.is_argument else typer.Option
    return Annotated[kind, make(*ours.names, **about)]
