"""The server's pages: what commands ask (`/v1/open`, `/v1/jobs`), and what anybody may (`/v1/sound2img`, ...)."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import mmx
from mmx.errors import InputError, MmxError, UsageError
from mmx.faults import unexpected
from mmx.media.given import Done
from mmx.serving.asking import question_of, shown
from mmx.serving.line import Full, Left, Line
from mmx.serving.openapi import document, page
from mmx.serving.query import Part, job_of
from mmx.serving.shelf import Shelf
from mmx.serving.wire import (
    ANYWHERE,
    SCHEMA,
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

STATUS = {2: 400, 3: 422, 4: 409, 5: 502}  # by an error's exit code; 500 for all others
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a server takes. room: jobs at a time; size: bytes of a request; patience: seconds that one may take to
    arrive; shelf: translators that stay loaded."""

    room: int = 64
    size: int = 256 << 20
    patience: float = 60.0
    shelf: int = 8


@dataclass
class State:
    """What the pages share."""

    limits: Limits
    line: Line
    shelf: Shelf
    preload: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)  # of what was to be loaded first: why it was not
    started: float = field(default_factory=time.monotonic)

    async def work(self, request: Request, work: Callable[[], T]) -> T:
        """What the models' thread returns. Raises as it does."""
        return await self.line.do(work, request.is_disconnected)


class Slow(UsageError):
    """A request did not arrive in time."""


class Large(UsageError):
    """A request is larger than the server takes."""


def told(error: MmxError, status: int | None = None) -> JSONResponse:
    """An error as an answer, with the object that `--json` prints."""
    status = status or STATUS.get(error.exit_code, 500)
    headers = {"Retry-After": "1"} if status == 429 else {}
    return JSONResponse({"schema": SCHEMA, **error.as_dict()}, status, headers)


def guarded(page: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A page whose errors are answers."""

    async def answer(request: Request) -> Response:
        try:
            return await page(request)
        except Full as error:
            return told(error, 429)
        except Slow as error:
            return told(error, 408)
        except Large as error:
            return told(error, 413)
        except MmxError as error:
            return told(error)
        except (ClientDisconnect, Left):
            return Response(status_code=499)  # nobody reads it
        except HTTPException as error:
            return told(UsageError(str(error.detail)), error.status_code)
        except Exception as error:
            return told(unexpected(error))

    return answer


async def body_of(request: Request, limits: Limits) -> bytes:
    """The whole body. Raises Slow, Large, ClientDisconnect."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limits.size:
        raise Large(f"more than {limits.size} bytes")
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.patience):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.size:
                    raise Large(f"more than {limits.size} bytes")
                parts.append(chunk)
    except TimeoutError:
        raise Slow(f"the request did not arrive within {limits.patience:g} s") from None
    return b"".join(parts)


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
    asked, job = asked_of(_ours(header)), unpack_job(header, blobs)
    done = await state.work(request, lambda: _run(state.shelf, asked, job))
    return Response(pack_done(done), media_type="application/octet-stream")


async def questions(request: Request) -> Response:
    """A command's question."""
    state: State = request.app.state.ours
    header, blobs = unpack(await body_of(request, state.limits))
    asked, question = asked_of(_ours(header)), unpack_question(header, blobs)
    answer = await state.work(request, lambda: state.shelf.run(asked, question))
    return Response(pack_answer(answer), media_type="application/octet-stream")


def _run(shelf: Shelf, asked: Any, job: Any) -> Done:
    try:
        return shelf.run(asked, job)
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
    """The artifact, or with `Accept: application/json` all that is known of it."""
    state: State = request.app.state.ours
    parts = await _parts(request, state.limits)
    asked, job = job_of(command, request.query_params, parts)
    as_json = "application/json" in request.headers.get("accept", "")
    if job.layout == "single" and len(job.indices) > 1 and not as_json:
        raise UsageError(
            "several results are one answer as JSON, or as a sheet", hint="Accept: application/json; grid=1"
        )
    done = await state.work(request, lambda: _run(state.shelf, asked, job))
    kind = "audio/wav" if TASKS[command].target.modality == "sound" else "image/png"
    if not as_json:
        return Response(done.artifacts[0].data, media_type=kind)
    artifacts = [
        {"media_type": kind, "base64": base64.b64encode(one.data).decode(), "provenance": one.record}
        for one in done.artifacts
    ]
    heard = [[{"label": label, "share": share} for label, share in one] for one in done.heard]
    about = {"schema": "mmx.served/1", "command": command, "heard": heard, "seconds": done.seconds, "notes": done.notes}
    return JSONResponse(about | {"artifacts": artifacts})


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


class Guard:
    """Lets in who knows the token. What connects over a Unix socket is its owner, and needs none."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.token:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.token):
                refusal = UsageError("this server's token is missing or wrong", hint="MMX_SERVER_TOKEN")
                await told(refusal, 401)(scope, receive, send)
                return
        await self.app(scope, receive, send)


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
    pages += [("/v1/questions", questions, "POST"), ("/v1/{command}", command, "POST")]
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
