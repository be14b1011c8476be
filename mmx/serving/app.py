"""The server's pages: what commands ask (`/v1/open`, `/v1/jobs`), and what anybody may (`/v1/sound2img`, ...)."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import mmx
from mmx.errors import InputError, MmxError, UsageError
from mmx.faults import unexpected
from mmx.media.given import Done, Watch
from mmx.serving.asking import question_of, shown
from mmx.serving.door import Guard, Limits, body_of, guarded, told
from mmx.serving.line import Line
from mmx.serving.openapi import document, page
from mmx.serving.query import Part, job_of
from mmx.serving.shelf import Shelf
from mmx.serving.steps import NDJSON, Stepping, Tickets, line
from mmx.serving.wire import (
    ANYWHERE,
    Asked,
    asked_of,
    pack_answer,
    pack_done,
    unpack,
    unpack_job,
    unpack_question,
)
from mmx.spaces.question import ASKING, raised
from mmx.tasks import TASKS

T = TypeVar("T")


@dataclass
class State:
    """What the pages share."""

    limits: Limits
    line: Line
    shelf: Shelf
    preload: tuple[str, ...] = ()
    tickets: Tickets = field(default_factory=Tickets)
    failed: dict[str, str] = field(default_factory=dict)  # of what was to be loaded first: why it was not
    started: float = field(default_factory=time.monotonic)

    async def work(self, request: Request, work: Callable[[], T]) -> T:
        """What the models' thread returns. Raises as it does."""
        return await self.line.do(work, request.is_disconnected)

    async def job(self, request: Request, work: Callable[[Watch], Done], ticket: str | None) -> Done:
        """A job's result. Raises as `run` of its models does."""
        return await self.tickets.do(self.line, Stepping(), work, request.is_disconnected, ticket)

    async def told(
        self, request: Request, work: Callable[[Watch], Done], ticket: str | None, last: Callable[[Done], bytes]
    ) -> Response:
        """A job's steps as they come, and what `last` makes of its result."""
        job = Stepping()
        doing = asyncio.create_task(self.tickets.do(self.line, job, work, request.is_disconnected, ticket))
        doing.add_done_callback(lambda task: task.cancelled() or task.exception())  # where nobody reads on
        return await job.answer(doing, last)


async def health(request: Request) -> Response:
    state: State = request.app.state.ours
    line = state.line
    about = {"status": "ok", "version": mmx.__version__, "waiting": line.waiting, "done": line.done}
    return JSONResponse(about | {"seconds": round(time.monotonic() - state.started, 1), "not_loaded": state.failed})


async def models(request: Request) -> Response:
    state: State = request.app.state.ours
    return JSONResponse({"commands": [*TASKS, *ASKING], "loaded": state.shelf.loaded()})


async def open_models(request: Request) -> Response:
    """What a command says of its models before it runs them; they are loaded now."""
    state: State = request.app.state.ours
    asked = asked_of(_ours(unpack(await body_of(request, state.limits))[0]))
    return JSONResponse(await state.work(request, partial(state.shelf.open, asked)))


async def jobs(request: Request) -> Response:
    """A command's job."""
    state: State = request.app.state.ours
    header, blobs = unpack(await body_of(request, state.limits))
    asked, job, ticket = asked_of(_ours(header)), unpack_job(header, blobs), header.get("ticket")
    work = partial(_run, state.shelf, asked, job)
    if isinstance(ticket, str):
        return await state.told(request, work, ticket, lambda done: line({"event": "done"}) + pack_done(done))
    return Response(pack_done(await state.job(request, work, None)), media_type="application/octet-stream")


async def stop(request: Request) -> Response:
    """End a job at its next step, with what is best by then."""
    state: State = request.app.state.ours
    ticket = request.query_params.get("ticket", "")
    return JSONResponse({"ticket": ticket, "found": state.tickets.stop(ticket)})


async def questions(request: Request) -> Response:
    """A command's question."""
    state: State = request.app.state.ours
    header, blobs = unpack(await body_of(request, state.limits))
    asked, question = asked_of(_ours(header)), unpack_question(header, blobs)
    answer = await state.work(request, lambda: state.shelf.run(asked, question))
    return Response(pack_answer(answer), media_type="application/octet-stream")


def _run(shelf: Shelf, asked: Any, job: Any, watch: Watch) -> Done:
    try:
        return shelf.run(asked, job, watch)
    except MmxError:
        raise
    except Exception as error:
        raise unexpected(error, job.inputs[0].name if job.inputs else "") from None


def _ours(header: dict[str, Any]) -> dict[str, Any]:
    """A request's header, if it is of this version's commands."""
    if not isinstance(header, dict) or header.get("version") != mmx.__version__:
        raise _Other("another version of mmx", hint=f"this is {mmx.__version__}")
    return header


class _Other(UsageError):
    def as_dict(self) -> dict[str, object]:
        return super().as_dict() | {"version": mmx.__version__}


async def command(request: Request) -> Response:
    """A request that anybody can write."""
    name = request.path_params["command"]
    if name in ASKING:
        return await consult(request, name)
    if name in TASKS:
        return await translate(request, name)
    return told(UsageError(f"{name}: no such command", hint=", ".join((*TASKS, *ASKING))), 404)


async def consult(request: Request, command: str) -> Response:
    """What a space says, as JSON."""
    state: State = request.app.state.ours
    parts = await _parts(request, state.limits)
    asked, question = question_of(command, request.query_params, parts)
    answer = await state.work(request, partial(state.shelf.run, asked, question))
    return JSONResponse(shown(command, raised(answer)))


async def translate(request: Request, command: str) -> Response:
    """The artifact, or with `Accept: application/json` all that is known of it, or with that of NDJSON its steps,
    too."""
    state: State = request.app.state.ours
    parts = await _parts(request, state.limits)
    asked, job = job_of(command, request.query_params, parts)
    accepted = request.headers.get("accept", "")
    as_json = any(kind in accepted for kind in ("application/json", NDJSON))
    if job.layout == "single" and len(job.indices) > 1 and not as_json:
        raise UsageError(
            "several results are one answer as JSON, or as a sheet", hint="Accept: application/json; grid=1"
        )
    work, ticket = partial(_run, state.shelf, asked, job), request.query_params.get("ticket")
    if NDJSON in accepted:
        return await state.told(request, work, ticket, lambda done: line({"event": "done"} | _known(command, done)))
    done = await state.job(request, work, ticket)
    if as_json:
        return JSONResponse(_known(command, done))
    return Response(done.artifacts[0].data, media_type=_kind(command))


def _kind(command: str) -> str:
    return "audio/wav" if TASKS[command].target.modality == "sound" else "image/png"


def _known(command: str, done: Done) -> dict[str, Any]:
    """All that is known of a job's results."""
    kind = _kind(command)
    artifacts = [
        {"media_type": kind, "base64": base64.b64encode(one.data).decode(), "provenance": one.record}
        for one in done.artifacts
    ]
    heard = [[{"label": label, "share": share} for label, share in one] for one in done.heard]
    about = {"schema": "mmx.served/1", "command": command, "heard": heard, "seconds": done.seconds, "notes": done.notes}
    return about | {"artifacts": artifacts, "stopped": done.stopped}


async def _parts(request: Request, limits: Limits) -> list[Part]:
    """The input as the body, or the parts of a form. Raises as `body_of`, and InputError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return [Part("source", "", await body_of(request, limits))]
    body, sent = await body_of(request, limits), False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        chunk, sent = (b"" if sent else body), True
        return {"type": "http.request", "body": chunk, "more_body": False}

    found = []
    try:
        async with Request(request.scope, receive).form(max_files=32, max_fields=32) as form:
            for role, value in form.multi_items():
                if isinstance(value, UploadFile):
                    found.append(Part(role, value.filename or "", await value.read()))
                else:
                    found.append(Part(role, "", str(value).encode(), is_text=True))
    except HTTPException as error:
        raise InputError(f"the form can't be read: {error.detail}") from None
    return found


async def schema(request: Request) -> Response:
    return JSONResponse(document(request.app.state.ours.limits.size))


async def docs(request: Request) -> Response:
    return HTMLResponse(page(document(request.app.state.ours.limits.size)))


def make_app(limits: Limits, *, token: str = "", preload: tuple[str, ...] = ()) -> Guard:
    """The whole server, without what it listens on."""
    state = State(limits, Line(limits.room), Shelf(limits.shelf), preload)

    @asynccontextmanager
    async def life(_: Starlette) -> Any:
        loading = asyncio.create_task(_load_first(state))
        yield
        loading.cancel()
        state.line.close()

    pages = [("/health", health, "GET"), ("/models", models, "GET"), ("/openapi.json", schema, "GET")]
    pages += [("/", docs, "GET"), ("/v1/open", open_models, "POST"), ("/v1/jobs", jobs, "POST")]
    pages += [("/v1/questions", questions, "POST"), ("/v1/stop", stop, "POST"), ("/v1/{command}", command, "POST")]
    routes = [Route(path, guarded(page), methods=[method]) for path, page, method in pages]
    app = Starlette(routes=routes, lifespan=life)
    app.state.ours = state
    guard = Guard(app, token)
    guard.state = state
    return guard


async def _load_first(state: State) -> None:
    """Load what the server was started for; what can't be is said by /health, and asked for again when it is needed."""

    async def here() -> bool:
        return False

    for command in state.preload:
        try:
            await state.line.do(partial(state.shelf.take, Asked(command, {}, ANYWHERE)), here)
        except Exception as error:
            state.failed[command] = getattr(error, "message", None) or unexpected(error).message
