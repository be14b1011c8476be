"""Avatars in a server: the bytes, words and exit codes of one process; how they are watched, ended, and asked for."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmx.guided.avatar_given import AvatarJob, Order, Piece
from mmx.media.given import Given
from mmx.media.provenance import read_record
from mmx.recipes.avatar import AvatarOptions
from mmx.serving.wire import ANYWHERE, Asked, pack, pack_order, unpack, unpack_dressed, unpack_order
from mmx.spaces.base import Space
from tests.conftest import ROOT
from tests.small_mesh import ball_file
from tests.small_space import see_pixels, small_space

pytest.importorskip("starlette")
from mmx.serving import app
from mmx.serving.app import Limits
from mmx.serving.avatars import avatar_parameters
from mmx.serving.openapi import document
from tests.running_server import Running, both_ways
from tests.test_serve_spaces import form

FAST = ["--steps", "12", "--views", "2", "--size", "32", "--faces", "80", "--device", "cpu"]


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Callable[[Space], None]:
    """Replaces the space that is loaded, here and in servers; a small one until another is given."""

    def use(one: Space) -> None:
        for name in ("load_space", "load_space_anew"):
            monkeypatch.setattr(f"mmx.spaces.load.{name}", lambda *_, **__: one)

    use(small_space())
    return use


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bark: Path) -> Path:
    """Where commands are run: a ball, two motions, of which one is none, and a sound."""
    monkeypatch.chdir(tmp_path)
    ball_file(Path("ball.obj"))
    for name, fineness in (("walk/0", 1), ("walk/1", 1), ("jump/0", 1), ("jump/1", 2)):
        ball_file(Path(f"{name}.ply"), fineness=fineness, stretch=(1, 1 + int(name[-1]), 1))
    Path("bark.wav").write_bytes(bark.read_bytes())
    Path("words.txt").write_text("no mesh at all")
    return tmp_path


def paceless(found: tuple[int, bytes, bytes, dict[str, bytes]]) -> tuple[int, bytes, bytes, dict[str, bytes]]:
    """What `both_ways` found, without how fast the steps were."""
    code, out, err, files = found
    return code, out, re.sub(rb" \S+(/s| s a step)$", b"", err, flags=re.MULTILINE), files


LINES = [
    ("ball.obj red -o out/a.glb -o out/a.png -o out/a.gif --preview out/p.png", 0),
    ("ball.obj \"red - 0.5*'green' + 0.1*bark.wav\" -o out/a.obj --json --seed 3", 0),
    ("walk red -o out/frames -o out/walk.gif", 0),
    ("ball.obj red -o - --quiet", 0),
    ("jump red -o out/a.glb", 3),
    ("words.txt red -o out/a.glb", 3),
    ("words.txt red -o out/a.glb --json", 3),
    ("ball.obj 'red - red' -o out/a.glb", 2),
    ("ball.obj red -o out/a.glb --dtype fp8", 2),
    ("ball.obj red -o out/a.stl", 2),
    ("ball.obj words.txt -o out/a.glb", 0),
]


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_an_avatar_with_a_server_is_that_without(
    line: str, wanted: int, start, mmx_in_process, space, folder, monkeypatch
) -> None:
    running = start()
    alone, served = both_ways(mmx_in_process, ["avatar", *shlex.split(line), *FAST], b"", monkeypatch)
    assert paceless(alone) == paceless(served)
    assert alone[0] == wanted and (wanted > 0 or alone[3] or alone[1]), alone[2].decode()
    line_of = running.app.state.line
    assert line_of.waiting == 0 and (line_of.done == 0) == (".stl" in line)


def breaking(at: int, how: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Space, list[bool]]:
    """A space of which something is done to what it sees the `at`-th time with gradients; and what grows with each
    look."""
    looks: list[bool] = []

    def pixels(seen: torch.Tensor) -> torch.Tensor:
        looks.extend([True] if seen.requires_grad else [])
        return how(see_pixels(seen)) if len(looks) == at and seen.requires_grad else see_pixels(seen)

    return replace(small_space(), pixels=pixels), looks


@pytest.mark.parametrize("server", ["none", "auto"])
def test_ctrl_c_writes_what_there_is(server: str, start, mmx_in_process, space, folder) -> None:
    """Of all outputs, and it can be made again."""
    running = start()

    def interrupted(value: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        return value

    broken, looks = breaking(4, interrupted)
    space(broken)
    line = ["avatar", "ball.obj", "red", "-o", "a.ply", "-o", "a.png", *FAST, "--steps", "5000", "--server", server]
    code, _, err = mmx_in_process(*line)
    until = read_record(Path("a.ply").read_bytes(), "a")["settings"]["until"]
    assert code == 130 and f"after {until} of 5000 steps is written".encode() in err
    assert 3 <= until == len(looks) - 1 < 5000
    space(small_space())
    assert all(mmx_in_process("reproduce", name)[0] == 0 for name in ("a.ply", "a.png"))
    assert running.app.state.line.waiting == 0 and (running.app.state.line.done > 0) == (server == "auto")


@pytest.mark.parametrize("server", ["none", "auto"])
@pytest.mark.parametrize(("at", "says"), [(3, b"after 1 of 12 steps is written"), (1, b"nothing was made yet")])
def test_losses_that_are_no_numbers(server: str, at, says, start, mmx_in_process, space, folder) -> None:
    start()
    space(breaking(at, lambda vectors: vectors * torch.nan)[0])
    code, _, err = mmx_in_process("avatar", "ball.obj", "red", "-o", "a.obj", *FAST, "--server", server)
    assert code == 7 and says in err and Path("a.obj").exists() == (at > 1)


def order_of(steps: int, **about: object) -> Order:
    options = AvatarOptions(steps=steps, views=2, size=32, faces=80)
    meshes = (Given("ball.obj", Path("ball.obj").read_bytes(), "mesh"),)
    job = AvatarJob(meshes, (Given("red", b"red", "query", is_text=True),), options, "cpu")
    return Order(job, (Piece(".ply"),), **about)


ASKED = Asked("avatar", {"space": None, "bridge": None}, ANYWHERE | {"device": "cpu"})


def test_who_breaks_off_ends_the_job(start, space, folder) -> None:
    running, begun = start(), threading.Event()

    def told(value: torch.Tensor) -> torch.Tensor:
        begun.set()
        return value

    broken, looks = breaking(2, told)
    space(broken)
    connection = running.connect()
    connection.request("POST", "/v1/jobs", pack_order(ASKED, order_of(99_999), "mine"))
    assert begun.wait(60)
    connection.sock.close()
    status, answer = running.ask("/v1/jobs", pack_order(ASKED, order_of(1), "other"))  # waits for its turn
    *events, rest = answer.split(b"\n", 3)
    assert status == 200 and [json.loads(one)["event"] for one in events] == ["ready", "step", "done"]
    made = unpack_dressed(rest)
    assert made.step == 1 and not made.stopped and len(made.artifacts) == 1 and len(looks) < 90_000
    assert running.app.state.line.waiting == 0 and not running.app.state.tickets._jobs


def test_a_server_that_dies_in_the_middle_is_done_without(start, mmx_in_process, space, folder, monkeypatch) -> None:
    start()
    line = ["avatar", "ball.obj", "red", "-o", "a.ply", *FAST, "--server", "auto"]

    async def nothing(*_: object) -> bytes:
        return b""

    monkeypatch.setitem(app.JOBS, "avatar", (*app.JOBS["avatar"][:2], lambda made: 1 / 0))
    code, _, err = mmx_in_process(*line)
    assert code == 1 and b"bug: ZeroDivisionError" in err and not Path("a.ply").exists()
    monkeypatch.setattr("mmx.serving.steps._end", nothing)
    assert mmx_in_process(*line)[0] == 0 and Path("a.ply").exists()


def test_a_served_avatar_imports_nothing_heavy(start, space, folder) -> None:
    running = start()
    script = "import sys\nfrom mmx.cli.app import main\ntry:\n main(sys.argv[1:])\nfinally:\n print(*sys.modules)"
    for quiet in (True, False):
        line = ["avatar", "ball.obj", "red", "-o", "a.glb", "--overwrite", *FAST, "--server", running.where]
        done = subprocess.run(
            [sys.executable, "-c", script, *line, *(["--quiet"] if quiet else [])],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0 and Path("a.glb").exists(), done.stderr
        heavy = {"torch", "numpy", "PIL", "trimesh", "av", "huggingface_hub", "starlette"}
        assert not (heavy | ({"rich.console"} if quiet else set())) & set(done.stdout.split())


def asked(running: Running, query: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    return running.ask(f"/v1/avatar?steps=12&views=2&size=32&faces=80&device=cpu{query}", body, **headers)


def test_anybody_can_ask(start, mmx_in_process, space, folder) -> None:
    """With the bytes that the command makes."""
    running, ball = start(), Path("ball.obj").read_bytes()
    assert mmx_in_process("avatar", "ball.obj", "red - 0.5*bark.wav", "-o", "a.glb", "-o", "a.png", *FAST)[0] == 0
    assert mmx_in_process("avatar", "ball.obj", "red", "-o", "red.ply", *FAST)[0] == 0
    status, answer = asked(running, "&name=ball.obj&query=red&output=.ply", ball)
    assert status == 200 and answer == Path("red.ply").read_bytes()
    parts = form(("mesh", "ball.obj", ball), ("query:-0.5", "bark.wav", Path("bark.wav").read_bytes()))
    kind = {"Content_Type": "multipart/form-data; boundary=x"}
    query = "&query=red&output=.glb,.png&previews=1"
    status, answer = asked(running, query, parts, **kind, Accept="application/x-ndjson")
    *events, done = [json.loads(line) for line in answer.splitlines()]
    named = [one["event"] for one in events]
    assert named == ["ready", "step", "preview", *["step"] * 10, "preview", "step"] and events[0]["triangles"] == 80
    assert base64.b64decode(events[2]["png"])[:4] == b"\x89PNG" and done["steps"] == 12 and not done["stopped"]
    for one, name in zip(done["artifacts"], ("a.glb", "a.png"), strict=True):
        assert base64.b64decode(one["base64"]) == Path(name).read_bytes()
        assert one["provenance"]["command"] == "avatar"
    walk = form(*(("mesh", f"{k}.ply", Path(f"walk/{k}.ply").read_bytes()) for k in range(2)))
    status, answer = asked(running, "&query=red&frames=1", walk, **kind, Accept="application/json")
    assert [one["provenance"]["indices"] for one in json.loads(answer)["artifacts"]] == [[0], [1]]


BAD = [
    ("&query=red", b"", 422),
    ("", b"v 0 0 0\n", 422),
    ("&query=red", b"no mesh", 422),
    ("&query=red&output=.exe", b"a", 400),
    ("&query=red&output=", b"a", 400),
    ("&query=red&output=.glb,.png", b"a", 400),
    ("&query=red&dtype=fp3", b"a", 400),
    ("&query=red&reach=9", b"a", 400),
    ("&query=red&nonsense=1", b"a", 400),
    ("&query=%00", b"a", 400),
]


def test_bad_requests_are_told_so(start, space, folder) -> None:
    running = start(Limits(size=1_000_000))
    for query, body, wanted in BAD:
        status, answer = asked(running, query, body)
        assert status == wanted and b"bug" not in answer, (query, status, answer)
    for parts in (
        (("nothing", "", b"a"),),
        (("mesh", "a.obj", b""),),
        (("mesh", "a.obj", b"v"), ("query:0", "", b"a")),
    ):
        status, answer = asked(running, "&query=red", form(*parts), Content_Type="multipart/form-data; boundary=x")
        assert status in (400, 422) and b"bug" not in answer, (parts, answer)
    header, blobs = unpack(pack_order(ASKED, order_of(1), "t"))
    mesh, text = header["inputs"]
    for wrong in (
        {"inputs": [mesh]},
        {"inputs": [text]},
        {"inputs": [mesh, text | {"role": "secret"}]},
        {"inputs": [mesh, text | {"weight": float("nan")}]},
        {"inputs": [mesh | {"name": "a\0"}, text]},
        {"inputs": [1, 2]},
        {"pieces": [[".exe", None]]},
        {"pieces": [[".glb", 1]]},
        {"pieces": [1]},
        {"options": {}},
        {"options": header["options"] | {"steps": 0}},
        {"options": header["options"] | {"seed": "x"}},
    ):
        about = header | wrong
        status, answer = running.ask("/v1/jobs", pack(about, blobs[: len(about["inputs"])]))
        assert status == 422 and b"bug" not in answer, (wrong, answer)
    assert running.app.state.line.waiting == 0 and not running.app.state.tickets._jobs


def test_orders_travel_and_the_document_names_every_option(start, folder) -> None:
    order = order_of(7, previews=True)
    assert unpack_order(*unpack(pack_order(ASKED, order, "t"))) == order
    about = document(Limits().size)["paths"]["/v1/avatar"]["post"]
    named = {one["name"] for one in about["parameters"]}
    assert named == avatar_parameters().keys() and {"steps", "ticket", "output", "query", "space"} <= named
    assert "mmx/v1/avatar" in start().ask("/")[1].decode()
