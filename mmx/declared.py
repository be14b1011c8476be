"""How options and arguments are declared, in the words of typer, which need not be imported for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin


@dataclass(frozen=True)
class Declared:
    """An option, or an argument. names: as they are typed; none: the field's own. min, max: of a number. callback: is
    given the value when the line is read."""

    names: tuple[str, ...] = ()
    is_argument: bool = False
    help: str | None = None
    metavar: str | None = None
    show_default: bool = True
    min: float | None = None
    max: float | None = None
    envvar: str | None = None
    callback: Callable[[Any], Any] | None = None


def Option(*names: str, **about: Any) -> Any:
    """An option, for Annotated."""
    return Declared(names, **about)


def Argument(**about: Any) -> Any:
    """An argument, for Annotated."""
    return Declared(is_argument=True, **about)


def declaration(hint: Any) -> tuple[Any, Declared | None]:
    """A field's hint → its type, and what it is declared as, if it is."""
    typed, ours = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, None)
    return typed, ours if isinstance(ours, Declared) else None


def without_none(typed: Any) -> tuple[Any, bool]:
    """A type → the same without None, and whether None was in it."""
    if get_origin(typed) not in (Union, UnionType):
        return typed, False
    (inner,) = (part for part in get_args(typed) if part is not NoneType)
    return inner, True
