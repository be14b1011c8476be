"""What stands before the server's pages: who may come in, with how much, and errors as answers."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mmx.errors import InputError, MmxError, UsageError
from mmx.faults import unexpected
from mmx.serving.line import Full, Left
from mmx.serving.query import Part
from mmx.serving.wire import SCHEMA

STATUS = {2: 400, 3: 422, 4: 409, 5: 502}  # by an error's exit code; 500 for all others


@dataclass(frozen=True)
class Limits:
    """What a server takes. room: jobs at a time; size: bytes of a request; patience: seconds that one may take to
    arrive; shelf: translators that stay loaded."""

    room: int = 64
    size: int = 256 << 20
    patience: float = 60.0
    shelf: int = 8


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


async def parts_of(request: Request, limits: Limits) -> list[Part]:
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
