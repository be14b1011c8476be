"""The server's pages: what commands ask (`/v1/open`, `/v1/jobs`), and what anybody may (`/v1/sound2img`, ...)."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import mmx
from mmx.errors import MmxError, UsageError
from mmx.faults import unexpected
from mmx.media.given import Done
from mmx.serving import avatars
from mmx.serving.asking import question_of, shown
from mmx.serving.door import Guard, Limits, body_of, guarded, parts_of, told
from mmx.serving.line import Line, Work
from mmx.serving.openapi import document, page
from mmx.serving.query import job_of
from mmx.serving.shelf import Shelf
from mmx.serving.steps import NDJSON, Stepping, Tickets, line
from mmx.serving.wire import (
    ANYWHERE,
    SERVED,
    Asked,
    asked_of,
    pack_answer,
    pack_done,
    pack_dressed,
    unpack,
    unpack_job,
    unpack_order,
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
        return await self.line.do(Work(work, request.is_disconnected))

    async def job(self, job: Stepping[T]) -> T:
        """A job's result. Raises as its models do."""
        return await self.tickets.do(self.line, job)

    async def told(self, job: Stepping[T], last: Callable[[T], bytes]) -> Response:
        """What a job tells as it comes, and what `last` makes of its result."""
        doing = asyncio.create_task(self.tickets.do(self.line, job))
        doing.add_done_callback(lambda task: task.cancelled() or task.exception())  # where nobody reads on
        return await job.answer(doing, last)


async def health(request: Request) -> Response:
    state: State = request.app.state.ours
    line = state.line
    about = {"status": "ok", "version": mmx.__version__, "waiting": line.waiting, "done": line.done}
    return JSONResponse(about | {"seconds": round(time.monotonic() - state.started, 1), "not_loaded": state.failed})


async def models(request: Request) -> Response:
    state: State = request.app.state.ours
    return JSONResponse({"commands": SERVED, "loaded": state.shelf.loaded()})


async def open_models(request: Request) -> Response:
    """What a command says of its models before it runs them; they are loaded now."""
    state: State = request.app.state.ours
    asked = asked_of(_ours(unpack(await body_of(request, state.limits))[0]))
    return JSONResponse(await state.work(request, partial(state.shelf.open, asked)))


async def jobs(request: Request) -> Response:
    """A command's job."""
    state: State = request.app.state.ours
    header, blobs = unpack(await body_of(request, state.limits))
    asked, ticket = asked_of(_ours(header)), header.get("ticket")
    unpacked, does, packed = JOBS.get(asked.command, TRANSLATED)
    job = Stepping(
        partial(does, state.shelf, asked, unpacked(header, blobs)),
        request.is_disconnected,
        ticket if isinstance(ticket, str) else None,
    )
    if job.ticket is not None:
        return await state.told(job, lambda made: line({"event": "done"}) + packed(made))
    return Response(packed(await state.job(job)), media_type="application/octet-stream")


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


def _run(shelf: Shelf, asked: Asked, job: Any, stepping: Stepping[Done]) -> Done:
    try:
        return shelf.run(asked, job, stepping.step)
    except MmxError:
        raise
    except Exception as error:
        raise unexpected(error, job.inputs[0].name if job.inputs else "") from None


TRANSLATED = (unpack_job, _run, pack_done)
JOBS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], bytes]]] = {
    "avatar": (unpack_order, Shelf.dress, pack_dressed)
}  # how what is asked for is read, done and written; all others are TRANSLATED


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
    if name in ANSWERED:
        return await ANSWERED[name](request, name)
    return told(UsageError(f"{name}: no such command", hint=", ".join(SERVED)), 404)


async def consult(request: Request, command: str) -> Response:
    """What a space says, as JSON."""
    state: State = request.app.state.ours
    parts = await parts_of(request, state.limits)
    asked, question = question_of(command, request.query_params, parts)
    answer = await state.work(request, partial(state.shelf.run, asked, question))
    return JSONResponse(shown(command, raised(answer)))


async def translate(request: Request, command: str) -> Response:
    """The artifact, or with `Accept: application/json` all that is known of it, or with that of NDJSON its steps,
    too."""
    state: State = request.app.state.ours
    parts = await parts_of(request, state.limits)
    asked, job = job_of(command, request.query_params, parts)
    if job.layout == "single" and len(job.indices) > 1 and not _as_json(request):
        raise UsageError(
            "several results are one answer as JSON, or as a sheet", hint="Accept: application/json; grid=1"
        )
    work = partial(_run, state.shelf, asked, job)
    made = await _answered(request, work, partial(_known, command))
    return made if isinstance(made, Response) else Response(made.artifacts[0].data, media_type=_kind(command))


async def avatar(request: Request, _command: str) -> Response:
    """As `translate`."""
    state: State = request.app.state.ours
    parts = await parts_of(request, state.limits)
    asked, order = avatars.order_of(request.query_params, parts)
    if len(order.pieces) > 1 and not _as_json(request):
        raise UsageError("several results are one answer as JSON", hint="Accept: application/json")
    work = partial(state.shelf.dress, asked, order)
    made = await _answered(request, work, partial(avatars.known, order))
    return made if isinstance(made, Response) else avatars.file_of(order, made)


ANSWERED: dict[str, Callable[[Request, str], Awaitable[Response]]] = {
    **dict.fromkeys(ASKING, consult),
    **dict.fromkeys(TASKS, translate),
    "avatar": avatar,
}


async def _answered(
    request: Request, work: Callable[[Stepping[T]], T], known: Callable[[T], dict[str, Any]]
) -> T | Response:
    """What comes of a job; or where JSON, or NDJSON, is asked for an answer with all that is known of it."""
    state: State = request.app.state.ours
    job = Stepping(work, request.is_disconnected, request.query_params.get("ticket"))
    if NDJSON in request.headers.get("accept", ""):
        return await state.told(job, lambda made: line({"event": "done"} | known(made)))
    made = await state.job(job)
    return JSONResponse(known(made)) if _as_json(request) else made


def _as_json(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return any(kind in accepted for kind in ("application/json", NDJSON))


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
            await state.line.do(Work(partial(state.shelf.take, Asked(command, {}, ANYWHERE)), here))
        except Exception as error:
            state.failed[command] = getattr(error, "message", None) or unexpected(error).message
