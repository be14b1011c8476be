"""What anybody may ask a space: the options in the query, the input as the body, or several as form parts."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmx.device import placed
from mmx.errors import InputError, UsageError
from mmx.media.formats import MODALITIES
from mmx.recipes.asking import options_of
from mmx.serving.query import Parameter, Part, read_query
from mmx.serving.wire import ANYWHERE, Asked
from mmx.spaces.answers import tensor
from mmx.spaces.query import Term
from mmx.spaces.question import KINDS, Answer, Question

MODELS = {
    "space": "Which joint embedding: a name or a folder. Default: the starter.",
    "bridge": "By which sounds, or arrays, come into an image decoder's space. Default: the starter's.",
}
OF_CAPTIONS = {"lm": "The language model. Default: the starter.", "dtype": "Of the language model."}
TEXT = "What is looked for, as a text; with what comes in parts it is a sum."
ROLES = {"localize": ("source", "query"), "search": ("query", "source"), "caption": ("source",)}


def question_parameters(command: str) -> dict[str, Parameter]:
    """What the query of a command's requests may hold: options, models, and a text that is looked for."""
    own = [Parameter("query", str, None, TEXT)] if command in ("search", "localize") else []
    own += parameters_of(KINDS[command].options)
    own.append(Parameter("name", str, "input", "What the input is called; its suffix says what is in it."))
    models = MODELS | (OF_CAPTIONS if command == "caption" else {})
    own += [Parameter(name, str, "auto" if name == "dtype" else None, said) for name, said in models.items()]
    own.append(Parameter("device", str, "auto", "auto, cpu, cuda, cuda:N or mps."))
    return {parameter.name: parameter for parameter in own}


def parameters_of(options: type) -> list[Parameter]:
    """Options as they are declared for commands."""
    known = [(option, option.ours) for option in options_of(options)]
    return [Parameter(one.name, one.kind, one.default, own.help or "", low=own.min, high=own.max) for one, own in known]


def question_of(command: str, query: Mapping[str, str], parts: Iterable[Part]) -> tuple[Asked, Question]:
    """A request → what it is put to, and the question. Raises UsageError, InputError."""
    values = read_query(command, query, question_parameters(command))
    if any("\0" in text for text in query.values()):
        raise UsageError("a parameter holds a NUL")
    options = KINDS[command].options
    placement = ANYWHERE | {"device": values["device"], "dtype": values.get("dtype", "auto")}
    placed(placement["device"], placement["dtype"])
    own = options(**{option.name: values[option.name] for option in fields(options)})
    terms = _terms(command, values, [part for part in parts if part.data or part.role != "source"])
    _refuse(command, own, terms)
    models = {role: values[role] for role in ("space", "bridge", "lm") if role in values}
    return Asked(command, models, placement), Question(command, own, terms)


def _terms(command: str, values: Mapping[str, Any], parts: list[Part]) -> tuple[Term, ...]:
    """What is asked about: a picture before what is looked for in it."""
    roles = ROLES.get(command, ("source",))
    first = [term_of_part(part, values["name"], roles) for part in parts if role_of(part) == "source"]
    rest = [term_of_part(part, values["name"], roles) for part in parts if role_of(part) != "source"]
    text = [Term("text", values["query"].strip())] if (values.get("query") or "").strip() else []
    return (*first, *text, *rest)


def role_of(part: Part) -> str:
    """What a part is for, without its weight."""
    role = part.role.partition(":")[0]
    return "source" if role == "file" else role


def term_of_part(part: Part, name: str, roles: tuple[str, ...]) -> Term:
    """A part of one of these roles as what is asked about. name: what it is called, unless it says. Raises UsageError,
    InputError."""
    if role_of(part) not in roles:
        raise UsageError(f"{part.role.partition(':')[0]}: no such part", hint=", ".join(roles))
    weight = _weight(part)
    if part.is_text:
        try:
            text = part.data.decode().strip()
        except UnicodeDecodeError:
            raise InputError("a text that is not UTF-8") from None
        if not text:
            raise InputError("a text is empty")
        return Term("text", text, weight)
    called = part.name or name
    if not part.data:
        raise InputError(f"{called}: it is empty")
    return Term("file" if Path(called).suffix else "stdin", called, weight, part.data)


def _weight(part: Part) -> float:
    _, colon, text = part.role.partition(":")
    try:
        weight = float(text) if colon else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight) or not weight:
        raise UsageError(f"{part.role}: the weight is no number other than 0")
    return weight


def _refuse(command: str, options: Any, terms: tuple[Term, ...]) -> None:
    """Raise UsageError or InputError for what can't be asked."""
    files = [term for term in terms if term.kind != "text"]
    if not terms or (command in ("tag", "localize") and not files):
        raise InputError("there is no input")
    if command in ("tag", "embed") and len(terms) > 1:
        raise InputError(f"{len(terms)} inputs, and this takes one")
    if command == "localize" and (terms[0].kind == "text" or len(terms) < 2):
        raise InputError("a picture, and what is looked for in it", hint="the picture as the body, and query=...")
    if command == "search" and not Path(options.index).is_dir():
        raise UsageError(f"index={options.index}: no such index", hint="mmx index FOLDER -o my.idx")
    if command == "search" and options.modality not in (None, *MODALITIES):
        raise UsageError(f"modality={options.modality}: no such modality", hint=", ".join(MODALITIES))


def shown(command: str, answer: Answer) -> dict[str, Any]:
    """An answer as JSON: its results, and with them vectors as numbers, drawings as base64."""
    results = answer.results
    if command == "embed":
        rows = tensor(answer.blobs[0]).view(len(results), -1).tolist()
        results = [about | {"vector": row} for about, row in zip(results, rows, strict=True)]
    elif command == "search":
        hits = [{"score": score, "standing": standing} | row for score, row, standing in results[0]["hits"]]
        results = [{"far": results[0]["far"], "hits": hits}]
    drawings = [base64.b64encode(blob).decode() for blob in answer.blobs] if command == "localize" else []
    return {"schema": "mmx.answered/1", "command": command, "results": results, "notes": answer.notes} | (
        {"drawings": drawings} if drawings else {}
    )
