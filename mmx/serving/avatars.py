"""What anybody may ask of an avatar: the options in the query, the mesh as the body, or it and more as form parts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from starlette.responses import Response

from mmx.device import placed
from mmx.errors import InputError, UsageError
from mmx.guided.avatar_given import OFTEN, WRITTEN, AvatarJob, Dressed, Order, Piece, given_of
from mmx.media.given import Given
from mmx.recipes.avatar import AvatarOptions
from mmx.serving.asking import MODELS, parameters_of, role_of, term_of_part
from mmx.serving.query import TICKET, Parameter, Part, read_query
from mmx.serving.wire import ANYWHERE, Asked

KINDS = {".gif": "image/gif", ".png": "image/png", ".mp4": "video/mp4", ".glb": "model/gltf-binary"}
KINDS |= {".obj": "model/obj", ".ply": "application/octet-stream"}
OWN = (
    Parameter("query", str, None, "What it is to look like, as a text; with what comes in parts it is a sum."),
    Parameter("output", tuple, (".glb",), f"What is made, with commas between: {', '.join(WRITTEN)}."),
    Parameter("frames", bool, False, "Of a motion: each .glb once for each of its meshes."),
    Parameter("previews", bool, False, f"With the steps, a picture of every {OFTEN}th, as base64."),
    Parameter("name", str, "input", "What the mesh is called; its suffix says what is in it."),
    Parameter("device", str, "auto", "auto, cpu, cuda, cuda:N or mps."),
    TICKET,
)


def avatar_parameters() -> dict[str, Parameter]:
    """What the query of a request for an avatar may hold."""
    models = [Parameter(name, str, None, said) for name, said in MODELS.items()]
    own = [*OWN, *parameters_of(AvatarOptions), *models]
    return {parameter.name: parameter for parameter in own}


def order_of(query: Mapping[str, str], parts: Iterable[Part]) -> tuple[Asked, Order]:
    """A request → what it is made with, and what is wanted. Raises UsageError, InputError."""
    values = read_query("avatar", query, avatar_parameters())
    if any("\0" in text for text in query.values()):
        raise UsageError("a parameter holds a NUL")
    options = AvatarOptions(**{option.name: values[option.name] for option in fields(AvatarOptions)})
    placed(values["device"], options.dtype)
    parts = [part for part in parts if part.data or part.role != "source"]
    meshes = tuple(_mesh(part, values["name"]) for part in parts if role_of(part) in ("source", "mesh"))
    rest = [part for part in parts if role_of(part) not in ("source", "mesh")]
    terms = [Part("query", "", values["query"].encode(), is_text=True)] if values["query"] else []
    wanted = tuple(given_of(term_of_part(part, "query", ("query",))) for part in (*terms, *rest))
    if not meshes or not wanted:
        raise InputError("a mesh, and what it is to look like", hint="the mesh as the body, and query=...")
    job = AvatarJob(meshes, wanted, options, values["device"])
    models = {role: values[role] for role in MODELS}
    order = Order(job, tuple(_pieces(values, len(meshes))), values["previews"])
    return Asked("avatar", models, ANYWHERE | {"device": values["device"]}), order


def _mesh(part: Part, name: str) -> Given:
    called = part.name or name
    if not part.data:
        raise InputError(f"{called}: it is empty")
    return Given(called, part.data, "mesh")


def _pieces(values: Mapping[str, Any], frames: int) -> Iterable[Piece]:
    if not values["output"]:
        raise UsageError("output: nothing is to be made", hint=", ".join(WRITTEN))
    for suffix in values["output"]:
        if suffix not in WRITTEN:
            raise UsageError(f"output={suffix}: this makes {', '.join(WRITTEN)}")
        own = range(frames) if values["frames"] and suffix == ".glb" else (None,)
        yield from (Piece(suffix, frame) for frame in own)


def file_of(order: Order, made: Dressed) -> Response:
    """The one file that was wanted. Raises what there is to say where there was no step."""
    artifacts, wrong = list(made.artifacts), made.wrong(order.job.options.steps)
    if wrong is not None and not artifacts:
        raise wrong
    return Response(artifacts[0].data, media_type=KINDS[order.pieces[0].suffix])


def known(order: Order, made: Dressed) -> dict[str, Any]:
    """All that is known of what came of it, as JSON."""
    artifacts = [
        {
            "media_type": KINDS[piece.suffix],
            "base64": base64.b64encode(one.data).decode(),
            "provenance": one.record,
        }
        for piece, one in zip(order.pieces, made.artifacts, strict=bool(made.step))
    ]
    about = {"schema": "mmx.dressed/1", "command": "avatar", "steps": made.step, "losses": made.losses}
    return about | {"front": made.front, "stopped": made.stopped, "artifacts": artifacts}
