"""Requests as anybody can write them: settings in the query, the input as the body, or several as form parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from mmx.declared import Declared
from mmx.device import placed
from mmx.errors import InputError, UsageError
from mmx.media.given import Given, Job
from mmx.options import Placement, Settings
from mmx.serving.wire import Asked
from mmx.tasks import TASKS, find
from mmx.translate.job import COMMON

MODELS = ("bridge", "decoder", "encoder")
ROLES = ("source", "mix", "interpolate", "image", "plus", "minus")
MAX_RESULTS = 64  # of one request


@dataclass(frozen=True)
class Parameter:
    """One that a request's query may have: what it is (tuple: texts with commas between), and between which numbers."""

    name: str
    kind: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None

    def read(self, text: str) -> Any:
        """A value as it is written. Raises UsageError."""
        if self.kind is bool:
            if text.lower() not in ("", "0", "1", "true", "false"):
                raise UsageError(f"{self.name}={text}: 0 or 1")
            return text.lower() in ("1", "true")
        if self.kind is tuple:
            return tuple(one.strip() for one in text.split(",") if one.strip())
        try:
            value = self.kind(text)
        except ValueError:
            raise UsageError(
                f"{self.name}={text}: not {'a whole number' if self.kind is int else 'a number'}"
            ) from None
        if self.kind is str:
            return value
        low, high = (float("-inf") if self.low is None else self.low), (self.high or float("inf"))
        if not low <= value <= high:
            raise UsageError(f"{self.name}={text}: not between {self.low} and {self.high}")
        return value


TICKET = Parameter("ticket", str, None, "What the job is called: POST /v1/stop?ticket=... ends it early.")


def parameters(command: str) -> dict[str, Parameter]:
    """What the query of a command's requests may hold: its settings, which results, and which models."""
    translator = find(TASKS[command].translator)
    own = [
        Parameter("n", int, 1, "How many different results.", low=1, high=MAX_RESULTS),
        Parameter("grid", bool, False, "One sheet of all results."),
        Parameter("strict", bool, False, "Refuse sounds of which a part is missing."),
        Parameter("name", str, "input", "What the input is called in the results' provenance."),
        *(Parameter(role, str, None, f"The {role}: a name or a folder. Default: the starter.") for role in MODELS),
    ]
    if TASKS[command].stepped:
        own.append(TICKET)
    hints = get_type_hints(Settings, include_extras=True)
    for option in fields(Settings):
        typed, about = (*get_args(hints[option.name]), None)[:2]
        if option.name in (*COMMON, *translator.options) and isinstance(about, Declared):  # others no option says
            kind = next((part for part in get_args(typed) if part is not type(None)), typed)
            own.append(Parameter(option.name, kind, option.default, about.help or "", low=about.min, high=about.max))
    return {parameter.name: parameter for parameter in own}


@dataclass(frozen=True)
class Part:
    """One part of a form, or the whole body: `role` with a weight as in mix:0.4."""

    role: str
    name: str
    data: bytes
    is_text: bool = False


def read_query(command: str, query: Mapping[str, str], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """A query → values by name, defaults for those that it lacks. Raises UsageError."""
    unknown = sorted(query.keys() - known.keys())
    if unknown:
        raise UsageError(f"{unknown[0]}: {command} has no such parameter", hint=", ".join(known))
    return {name: one.read(query[name]) if name in query else one.default for name, one in known.items()}


def job_of(command: str, query: Mapping[str, str], parts: Iterable[Part]) -> tuple[Asked, Job]:
    """A request → what it is for, and its job. Raises UsageError, InputError."""
    values = read_query(command, query, parameters(command))
    inputs = tuple(_given(command, part, values["name"]) for part in parts)
    sources = [given for given in inputs if given.role == "source"]
    if not sources or (len(sources) > 1 and not values.get("average")):
        raise InputError(f"{len(sources)} sources, and this takes one" if sources else "there is no input")
    settings = Settings(**{o.name: values[o.name] for o in fields(Settings) if o.name in values})
    placed(settings.device, settings.dtype)
    walks = any(given.role == "interpolate" for given in inputs)
    layout = "strip" if walks else "grid" if values["grid"] else "single"
    models = {role: values[role] for role in MODELS}
    indices = tuple(range(values["n"]))
    job = Job(inputs, settings, indices, layout, command=command, strict=values["strict"])
    return Asked(command, models, {o.name: getattr(settings, o.name) for o in fields(Placement)}), job


def _given(command: str, part: Part, name: str) -> Given:
    role, colon, weight = part.role.partition(":")
    role = "source" if role == "file" else role
    if role not in ROLES:
        raise UsageError(f"{role}: no such part", hint=", ".join(ROLES))
    try:
        share = float(weight) if colon else 0.5 if role in ("mix", "image") else 1.0
    except ValueError:
        raise UsageError(f"{part.role}: the weight is no number") from None
    if not 0 <= share <= 1:
        raise UsageError(f"{part.role}: a weight lies between 0 and 1")
    if (TASKS[command].source.modality == "text" and role == "source") or part.is_text:
        text = _text(part.data)
        return Given(text, text.encode(), role, share, is_text=True)
    if not part.data:
        raise InputError(f"{part.name or name}: it is empty")
    return Given(part.name or name, part.data, role, share)


def _text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise InputError("a text that is not UTF-8") from None
