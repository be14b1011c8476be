"""Options as dataclasses: a command is given them filled in, and typer sees a parameter for each of their fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, get_type_hints


def takes(function: Callable[..., None]) -> Callable[..., None]:
    """A function whose parameters are dataclasses → a command with all of their fields as options."""
    groups = {name: kind for name, kind in get_type_hints(function).items() if name != "return"}

    @wraps(function)
    def command(**given: Any) -> None:
        filled = {
            name: kind(**{option.name: given[option.name] for option in fields(kind)}) for name, kind in groups.items()
        }
        function(**filled)

    command.__signature__ = Signature([parameter for kind in groups.values() for parameter in _parameters(kind)])
    return command


def _parameters(group: type) -> Iterator[Parameter]:
    """The fields of a dataclass as parameters: an Annotated type with what typer needs to know, and the default."""
    types = get_type_hints(group, include_extras=True)
    for option in fields(group):
        default = Parameter.empty if option.default is MISSING else option.default
        if option.default_factory is not MISSING:
            default = option.default_factory()
        yield Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[option.name])
