"""Jobs and results as bytes: a line of JSON, and the contents that it gives the sizes of, one after the other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import mmx
from mmx import errors
from mmx.errors import InputError, MmxError
from mmx.guided.avatar_given import WRITTEN, AvatarJob, Dressed, Order, Piece
from mmx.media.given import Artifact, Done, Given, Job
from mmx.options import Settings
from mmx.recipes.asking import filled
from mmx.recipes.avatar import AvatarOptions
from mmx.spaces.query import Term
from mmx.spaces.question import ASKING, KINDS, Answer, Question
from mmx.tasks import TASKS

SCHEMA = "mmx.error/1"
SERVED = (*TASKS, *ASKING, "avatar")  # commands that a server does
ROLES = {"bridge", "decoder", "encoder", "space", "lm"}
TERMS = ("text", "file", "array", "stdin", "stream")
ANYWHERE = {
    "device": "auto",
    "dtype": "auto",
    "low_memory": False,
    "compile": False,
}  # where a command computes unasked


@dataclass(frozen=True)
class Asked:
    """Models by role, as a command names them, and where and in what they compute."""

    command: str
    models: dict[str, str | None]
    placement: dict[str, Any]
    threads: int | None = None  # None: as many as the server has

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells two loaded models apart."""
        named = {role: name for role, name in self.models.items() if name is not None}
        return (self.command, *sorted(named.items()), *sorted(self.placement.items()))

    def as_dict(self) -> dict[str, Any]:
        return {"version": mmx.__version__, **asdict(self)}


def pack(header: dict[str, Any], blobs: Iterable[bytes]) -> bytes:
    """A header and contents → bytes."""
    blobs = list(blobs)
    line = json.dumps(header | {"sizes": [len(blob) for blob in blobs]})
    return b"\n".join((line.encode(), b"".join(blobs)))


def unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """What `pack` made → header and contents. Raises InputError for anything else."""
    line, _, rest = data.partition(b"\n")
    try:
        header = json.loads(line)
        sizes = header["sizes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError("the request has no header of ours") from None
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise InputError("the request's sizes are none")
    if sum(sizes) != len(rest):
        raise InputError("the request is cut short")
    blobs, at = [], 0
    for size in sizes:
        blobs.append(rest[at : at + size])
        at += size
    return header, blobs


def asked_of(header: dict[str, Any]) -> Asked:
    """The models that a request is for. Raises InputError."""
    try:
        asked = Asked(*(header[name] for name in ("command", "models", "placement", "threads")))
        good = isinstance(asked.command, str) and asked.threads in (None, *range(1, 1025))
        names = {**asked.models}
        good = good and all(value is None or isinstance(value, str) for value in names.values())
        good = good and names.keys() <= ROLES
        good = good and asked.placement.keys() == ANYWHERE.keys()
        good = good and all(type(asked.placement[name]) is type(usual) for name, usual in ANYWHERE.items())
        hash(asked.key)
    except (KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise InputError("the request does not say which models it is for")
    return asked


def pack_job(asked: Asked, job: Job, ticket: str | None = None) -> bytes:
    """A job and what it is for → bytes. ticket: what it is called by who wants to be told of its steps."""
    about = {"settings": asdict(job.settings), "indices": job.indices, "layout": job.layout, "strict": job.strict}
    return pack(asked.as_dict() | about | _inputs(job.inputs, ticket), (given.data for given in job.inputs))


def _inputs(inputs: Iterable[Given], ticket: str | None) -> dict[str, Any]:
    own = [{name: getattr(given, name) for name in ("name", "role", "weight", "is_text")} for given in inputs]
    return {"inputs": own} | ({} if ticket is None else {"ticket": ticket})


def _given(header: dict[str, Any], blobs: list[bytes]) -> tuple[Given, ...]:
    return tuple(
        Given(about["name"], data, about["role"], about["weight"], about["is_text"])
        for about, data in zip(header["inputs"], blobs, strict=True)
    )


def unpack_job(header: dict[str, Any], blobs: list[bytes]) -> Job:
    """The job in a request. Raises InputError."""
    try:
        indices = tuple(int(index) for index in header["indices"])
        settings = Settings(**header["settings"])
        how = {"command": header["command"], "strict": bool(header["strict"])}
        return Job(_given(header, blobs), settings, indices, header["layout"], **how)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("the request holds no job") from None


def pack_done(done: Done) -> bytes:
    """A finished job → bytes."""
    header = {"heard": done.heard, "seconds": done.seconds, "notes": done.notes, "stopped": done.stopped}
    header["records"] = [artifact.record for artifact in done.artifacts]
    return pack(header, (artifact.data for artifact in done.artifacts))


def unpack_done(data: bytes) -> Done:
    """What `pack_done` made. Raises InputError for anything else."""
    header, blobs = unpack(data)
    artifacts = [Artifact(blob, record) for blob, record in zip(blobs, header["records"], strict=True)]
    heard = [[(label, share) for label, share in one] for one in header["heard"]]
    return Done(artifacts, heard, header["seconds"], header["notes"], header["stopped"])


def pack_order(asked: Asked, order: Order, ticket: str) -> bytes:
    """An avatar that is wanted, and what it is made with → bytes. ticket: as of `pack_job`."""
    job = order.job
    about = {"options": asdict(job.options), "previews": order.previews}
    about["pieces"] = [(piece.suffix, piece.frame) for piece in order.pieces]
    given = (*job.meshes, *job.query)
    return pack(asked.as_dict() | about | _inputs(given, ticket), (one.data for one in given))


def unpack_order(header: dict[str, Any], blobs: list[bytes]) -> Order:
    """The avatar that a request wants. Raises InputError."""
    try:
        given = _given(header, blobs)
        meshes, query = (tuple(one for one in given if (one.role == "mesh") == mesh) for mesh in (True, False))
        good = bool(meshes and query) and all(one.role in ("query", "array") for one in query)
        good = good and all(math.isfinite(one.weight) and "\0" not in one.name for one in given)
        pieces = tuple(Piece(suffix, frame) for suffix, frame in header["pieces"])
        frames = (None, *range(len(meshes)))
        if not good or not all(piece.suffix in WRITTEN and piece.frame in frames for piece in pieces):
            raise ValueError("no such avatar")
        options = filled(AvatarOptions, header["options"])
        job = AvatarJob(meshes, query, options, header["placement"]["device"])
        return Order(job, pieces, bool(header["previews"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("the request holds no avatar") from None


def pack_dressed(made: Dressed) -> bytes:
    """What came of an avatar → bytes."""
    artifacts = list(made.artifacts)
    header = {"step": made.step, "losses": made.losses, "front": made.front, "stopped": made.stopped}
    return pack(header | {"records": [one.record for one in artifacts]}, (one.data for one in artifacts))


def unpack_dressed(data: bytes) -> Dressed:
    """What `pack_dressed` made. Raises InputError for anything else."""
    header, blobs = unpack(data)
    artifacts = [Artifact(blob, record) for blob, record in zip(blobs, header.pop("records"), strict=True)]
    return Dressed(artifacts, **{name: value for name, value in header.items() if name != "sizes"})


def pack_question(asked: Asked, question: Question) -> bytes:
    """A question, with the contents of all files in it, and what it is put to → bytes."""
    terms = [{"kind": term.kind, "value": term.value, "weight": term.weight} for term in question.terms]
    about = {"question": question.kind, "options": asdict(question.options), "terms": terms}
    data = [term.data for term in question.terms if isinstance(term.data, bytes)]
    return pack(asked.as_dict() | about, (*data, *question.blobs))


def unpack_question(header: dict[str, Any], blobs: list[bytes]) -> Question:
    """The question in a request. Raises InputError."""
    try:
        left, kind = iter(blobs), KINDS[header["question"]]
        terms = tuple(_term(about, left) for about in header["terms"])
        if not kind.fits(terms):
            raise ValueError("other terms")
        return Question(header["question"], filled(kind.options, header["options"]), terms, tuple(left))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("the request holds no question") from None


def _term(about: dict[str, Any], left: Iterator[bytes]) -> Term:
    kind, value, weight = about["kind"], about["value"], float(about["weight"])
    value.encode()
    if kind not in TERMS or "\0" in value or not math.isfinite(weight):
        raise ValueError("no such term")
    return Term(kind, value, weight, None if kind == "text" else _next(left))


def _next(left: Iterator[bytes]) -> bytes:
    for blob in left:
        return blob
    raise ValueError("a content is missing")


def pack_answer(answer: Answer) -> bytes:
    """An answer → bytes."""
    error = answer.error
    told = error.as_dict() if isinstance(error, MmxError) else None
    return pack({"results": answer.results, "notes": answer.notes, "told": told}, answer.blobs)


def unpack_answer(data: bytes) -> Answer:
    """What `pack_answer` made. Raises InputError for anything else."""
    header, blobs = unpack(data)
    error = error_of(header["told"]) if header["told"] else None
    return Answer(header["results"], blobs, header["notes"], error)


def error_of(about: dict[str, Any]) -> MmxError:
    """An error as a server told it → the same error here."""
    kind = getattr(errors, str(about.get("error")), MmxError)
    error = kind(str(about.get("message", "the server failed")), str(about.get("hint", "")))
    error.exit_code = int(about.get("exit_code", 1))
    return error
