"""Lines that are plain to read are read here, in a few milliseconds: importing and building typer's parser takes as
much as all else that a command does before it computes.

A line of which anything is unusual or wrong, help and completion among it, is left to typer, which knows what to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mmx.cli.commands import COMMANDS
from mmx.declared import Declared, declaration, without_none
from mmx.tasks import find

COMPLETING = "_MMX_COMPLETE"  # in the environment where the shell asks for completions
NUMBERS = {int: re.compile(r"[+-]?\d{1,15}", re.ASCII), float: re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?", re.ASCII)}


class NotPlain(Exception):
    """Typer is to read the line."""


@dataclass(frozen=True)
class _Known:
    """A field of a command's options. kind: of a value; many: whether it holds several."""

    field: Field[Any]
    ours: Declared
    kind: type
    many: bool

    @property
    def required(self) -> bool:
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def names(self) -> tuple[str, ...]:
        """As they are typed. A flag without names of its own has a second one, and is not known here."""
        if self.kind is bool and not self.ours.names:
            raise NotPlain
        return self.ours.names or (f"--{self.field.name.replace('_', '-')}",)

    def default(self) -> Any:
        """Without a value; of several there is a list in any case."""
        usual = self.field.default if self.field.default_factory is MISSING else self.field.default_factory()
        return [] if self.many and usual is None else usual

    def read(self, text: str) -> Any:
        """A value as it is typed."""
        if self.kind in NUMBERS:
            if not NUMBERS[self.kind].fullmatch(text):
                raise NotPlain
            return self.bounded(self.kind(text))
        return self.kind(text)

    def bounded(self, value: Any) -> Any:
        """A value that the user may give."""
        low, high = self.ours.min, self.ours.max
        if (low is not None and value < low) or (high is not None and value > high):
            raise NotPlain
        return value


def read_plain(line: list[str]) -> Callable[[], None] | None:
    """What a line asks for; None where typer is to read it. Raises UsageError for a config that can't be read."""
    if not line or line[0] not in COMMANDS or COMPLETING in os.environ:
        return None
    command = find(COMMANDS[line[0]].where)
    if not hasattr(command, "groups"):
        return None
    try:
        known = {own.field.name: own for group in command.groups.values() for own in _known(group)}
        given = _given(line[1:], known)
        values = given | _unsaid(line[0], given, known)
    except NotPlain:
        return None
    for name, own in known.items():
        if own.ours.callback is not None:
            values[name] = own.ours.callback(values[name])
    return partial(command, **values)


def _known(group: type) -> Iterator[_Known]:
    hints = get_type_hints(group, include_extras=True)
    for option in fields(group):
        typed, ours = declaration(hints[option.name])
        if ours is None:
            raise NotPlain
        kind, many = _kind(typed)
        yield _Known(option, ours, kind, many)


def _kind(typed: Any) -> tuple[type, bool]:
    """int, float, bool, str or Path; whether it is a list of them."""
    typed, _ = without_none(typed)
    many = get_origin(typed) is list
    kind = get_args(typed)[0] if many else typed
    if kind not in (int, float, bool, str, Path):
        raise NotPlain
    return kind, many


def _given(words: list[str], known: dict[str, _Known]) -> dict[str, Any]:
    """The values in a line, by the fields' names."""
    options = {name: own for own in known.values() if not own.ours.is_argument for name in own.names}
    values: dict[str, Any] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        name, joined, text = word.partition("=")
        own = options.get(name)
        if own is None or (joined and (own.kind is bool or not name.startswith("--"))):
            raise NotPlain
        if own.kind is bool:
            values[own.field.name] = True
            continue
        value = own.read(text if joined else _next(waiting))
        values[own.field.name] = [*values.get(own.field.name, []), value] if own.many else value
    return values | _arguments(rest, [own for own in known.values() if own.ours.is_argument])


def _next(waiting: Iterator[str]) -> str:
    word = next(waiting, None)
    if word is None or (word.startswith("-") and word != "-" and not NUMBERS[float].fullmatch(word)):
        raise NotPlain  # a value is missing, or it looks as if it were
    return word


def _arguments(words: list[str], takers: list[_Known]) -> dict[str, Any]:
    """Each word to the argument of its place, and the rest to one that takes several."""
    values: dict[str, Any] = {}
    for own in takers:
        if own.many:
            values |= {own.field.name: [own.read(word) for word in words]} if words else {}
            words = []
        elif words:
            values[own.field.name] = own.read(words[0])
            words = words[1:]
    if words:
        raise NotPlain
    return values


def _unsaid(command: str, given: dict[str, Any], known: dict[str, _Known]) -> dict[str, Any]:
    """What the line leaves out: from the environment, from what the user chose once, or as it is by default."""
    from mmx.cli.settings import defaults_for

    chosen, values = defaults_for(command, known), {}
    for name, own in known.items():
        if name in given:
            continue
        told = os.environ.get(own.ours.envvar) if own.ours.envvar else None
        if told:
            values[name] = own.read(told)
        elif name in chosen:
            values[name] = own.bounded(chosen[name])
        elif own.required:
            raise NotPlain
        else:
            values[name] = own.default()
    return values
