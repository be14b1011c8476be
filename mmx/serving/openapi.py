"""What the server can be asked, as an OpenAPI document, and as a page to read it on."""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import cache
from typing import Any

import mmx
from mmx.serving.asking import question_parameters
from mmx.serving.avatars import KINDS, avatar_parameters
from mmx.serving.query import Parameter, parameters
from mmx.spaces.question import ASKING
from mmx.tasks import TASKS

TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", tuple: "string"}
SAYS = {
    "embed": ("Unit vectors of a picture, a sound, a text or a video.", "@photo.jpg", "?name=photo.jpg"),
    "tag": ("What a picture, a sound or a video is of.", "@bark.wav", "?labels=dog,cat,car"),
    "search": ("What of an index is nearest to a text, a file or a sum.", "''", "?index=FOLDER&query=dog"),
    "localize": ("Where in a picture something is.", "@street.jpg", "?query=dog"),
    "caption": ("A picture, a sound or a sum in words.", "@photo.jpg", "?name=photo.jpg"),
    "avatar": ("A mesh that looks like what is asked for.", "@spot.obj", "?name=spot.obj&query=dog"),
}
PARTS = {
    "search": "Nothing beside query=, a file, or a form: query, query:0.5, query:-1.",
    "localize": "The picture, or a form: source, and query, query:0.5, query:-1.",
    "caption": "The input itself, or a form: source, source:0.5, source:-1.",
    "avatar": "The mesh, or a form: mesh, several for a motion, and query, query:0.5, query:-1.",
}
INPUTS = {"sound": "audio/*", "image": "image/*", "text": "text/plain"}
ERRORS = {
    "400": "A parameter that makes no sense.",
    "401": "The token is missing or wrong.",
    "408": "The request did not arrive in time.",
    "409": "A model is missing or does not fit.",
    "413": "The request is too large.",
    "422": "The input is unreadable.",
    "429": "As many jobs wait as may; try again soon.",
}
STREAM = " As NDJSON: a line for each step as it is done, with its losses, and a last one with the rest or an error."
STYLE = "body{font:16px system-ui;margin:2em auto;max-width:60em;padding:0 1em}td,th{text-align:left;padding:.2em .8em}"
STYLE += "code{background:#8882;padding:.1em .3em}:root{color-scheme:light dark}"


@cache
def document(size: int) -> dict[str, Any]:
    """The document (OpenAPI 3.1) of a server that takes requests of `size` bytes."""
    paths: dict[str, Any] = {
        "/health": {"get": _plain("Whether the server is there, and how many jobs wait.")},
        "/models": {"get": _plain("What is loaded.")},
    }
    for name in TASKS:
        paths[f"/v1/{name}"] = {"post": _operation(name)}
    for name in ASKING:
        paths[f"/v1/{name}"] = {"post": _question(name)}
    paths["/v1/avatar"] = {"post": _avatar()}
    paths["/v1/stop"] = {"post": _stop()}
    about = f"Models that stay loaded, on this machine. Requests of at most {size} bytes."
    return {
        "openapi": "3.1.0",
        "info": {"title": "mmx", "version": mmx.__version__, "description": about},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _plain(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "JSON", "content": {"application/json": {}}}}}


def _stop() -> dict[str, Any]:
    ticket = Parameter("ticket", str, None, "What the job was called by who asked for it.")
    summary = "End a job that goes by steps: it answers with what is best by then."
    return _plain(summary) | {"operationId": "stop", "parameters": [_parameter(ticket)]}


def _operation(command: str) -> dict[str, Any]:
    task = TASKS[command]
    streams = {"application/x-ndjson": {}} if task.stepped else {}
    kind = "audio/wav" if task.target.modality == "sound" else "image/png"
    form = {"type": "object", "properties": {"source": {"type": "string", "format": "binary"}}}
    return {
        "summary": f"{task.source.modality} → {task.target.modality}",
        "operationId": command,
        "parameters": [_parameter(one) for one in parameters(command).values()],
        "requestBody": {
            "required": True,
            "description": "The input itself, or a form: source, mix:0.4, interpolate, image:0.5, plus, minus.",
            "content": {INPUTS[task.source.modality]: {}, "multipart/form-data": {"schema": form}},
        },
        "responses": {
            "200": {
                "description": "The artifact, with what made it inside; or as JSON, base64 beside what was heard."
                + (STREAM if streams else ""),
                "content": {kind: {}, "application/json": {}} | streams,
            },
            **{status: {"description": text} for status, text in ERRORS.items()},
        },
    }


def _question(command: str) -> dict[str, Any]:
    answer = {"description": "Objects as --json prints them.", "content": {"application/json": {}}}
    return _said(command, question_parameters(command), answer)


def _avatar() -> dict[str, Any]:
    told = " Its steps come after what is said of the mesh, and with previews=1 pictures between them."
    answer = {
        "description": "The file, with what made it inside; or as JSON all of them, base64." + STREAM + told,
        "content": {kind: {} for kind in (*KINDS.values(), "application/json", "application/x-ndjson")},
    }
    return _said("avatar", avatar_parameters(), answer)


def _said(command: str, known: Mapping[str, Parameter], answer: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "properties": {"source": {"type": "string", "format": "binary"}}}
    return {
        "summary": SAYS[command][0],
        "operationId": command,
        "parameters": [_parameter(one) for one in known.values()],
        "requestBody": {
            "required": command != "search",
            "description": PARTS.get(command, "The input itself, or a form: source."),
            "content": {"application/octet-stream": {}, "multipart/form-data": {"schema": form}},
        },
        "responses": {"200": answer, **{status: {"description": text} for status, text in ERRORS.items()}},
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": TYPES[one.kind]}
    default = ",".join(one.default) if isinstance(one.default, tuple) else one.default
    schema |= {"default": default} if one.default is not None else {}
    schema |= {"minimum": one.low} if one.low is not None else {}
    schema |= {"maximum": one.high} if one.high is not None else {}
    return {"name": one.name, "in": "query", "description": one.help, "schema": schema}


def page(about: dict[str, Any]) -> str:
    """A document as HTML that needs nothing from elsewhere."""
    parts = [f"<!doctype html><meta charset=utf-8><title>mmx</title><style>{STYLE}</style><h1>mmx serve</h1>"]
    parts.append(f"<p>{html.escape(about['info']['description'])} <a href=openapi.json>openapi.json</a></p>")
    for path, methods in about["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(operation['summary'])}</p>")
            if method == "post":
                name = operation["operationId"]
                if "application/x-ndjson" in operation["responses"]["200"]["content"]:
                    parts.append(f"<p>{html.escape(STREAM)} <code>-N -H 'Accept: application/x-ndjson'</code></p>")
                parts.append(f"<p><code>{html.escape(_example(name))}</code></p>")
                rows = "".join(_row(one) for one in operation["parameters"])
                parts.append(f"<table><tr><th>query<th>type<th>default<th>what{rows}</table>")
    return "".join(parts)


def _example(command: str) -> str:
    if command == "stop":
        return "curl --unix-socket SOCKET -X POST http://mmx/v1/stop?ticket=mine"
    if command in SAYS:
        _, data, query = SAYS[command]
        out = " -o dog.glb" if command == "avatar" else ""
        return f"curl --unix-socket SOCKET --data-binary {data} 'http://mmx/v1/{command}{query}'{out}"
    task = TASKS[command]
    data = "'a photo of a seashore'" if task.source.modality == "text" else "@input"
    out = "out.wav" if task.target.modality == "sound" else "out.png"
    return f"curl --unix-socket SOCKET --data-binary {data} http://mmx/v1/{command}?seed=1 -o {out}"


def _row(one: dict[str, Any]) -> str:
    schema = one["schema"]
    cells = (one["name"], schema["type"], str(schema.get("default", "")), one["description"])
    return "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells)
