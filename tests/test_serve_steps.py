"""Jobs that go by steps, in a server: what is told of them, how they are ended, and what is left then."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.errors import InputError
from mmx.guided.edit_terms import Terms
from mmx.media.given import Given, Job
from mmx.media.provenance import read_record
from mmx.options import Settings
from mmx.serving.client import Served
from mmx.serving.wire import ANYWHERE, Asked, pack_job, unpack_done
from tests.conftest import ROOT
from tests.debug import make_reading_faces
from tests.test_serve import timeless

pytest.importorskip("starlette")
from mmx.serving import app
from mmx.serving.app import Limits
from tests.running_server import Running, both_ways


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face decoder that reads texts."""
    return make_reading_faces(tmp_path_factory.mktemp("steps") / "faces")


@pytest.fixture
def folder(tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are run: a picture that is taken for a face, one without any, and the decoder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((12, 12, 1)))
    Image.fromarray(pixels.astype(np.uint8)).save("face.png")
    Image.new("RGB", (64, 64)).save("wall.png")
    Path("in").mkdir()
    for name, what in (("a", "face.png"), ("b", "wall.png")):
        Path(f"in/{name}.png").write_bytes(Path(what).read_bytes())

    def find(picture: Image.Image, name: str) -> Image.Image:
        if not np.asarray(picture).any():
            raise InputError(f"{name}: no face is found")
        return picture

    monkeypatch.setattr("mmx.guided.edit.find_face", find)
    return tmp_path


@pytest.fixture
def common(folder: Path, faces: Path) -> list[str]:
    """Options of every command."""
    return ["--decoder", os.path.relpath(faces), "--invert", "2", "--device", "cpu"]


LINES = [
    "face.png old -o out --steps 3 -n 2 --seed 5",
    "- old -o - --steps 2 --quiet",
    "face.png old -o out/a.png --direction --json",
    "in old -o out --steps 1",
    "wall.png old -o out/a.png",
    "face.png smiling -o out/a.png --json",
    "face.png old -o out/a.png --space in --dtype fp3",
]


@pytest.mark.parametrize("line", LINES)
def test_an_edit_with_a_server_is_that_without(line: str, start, mmx_in_process, folder, common, monkeypatch) -> None:
    running = start()
    words = ["edit", *line.split(), *common]
    alone, served = both_ways(mmx_in_process, words, Path("face.png").read_bytes(), monkeypatch)
    assert timeless(alone) == timeless(served)
    wanted = {"wall": 3, "smiling": 3, "fp3": 2, "in old": 6}
    assert alone[0] == next((code for word, code in wanted.items() if word in line), 0), alone[2].decode()
    assert running.app.state.line.waiting == 0


def test_a_terminal_sees_the_same_steps(start, mmx_in_process, folder, common, monkeypatch) -> None:
    """In one process and from a server: what the losses are of each step."""
    start()
    monkeypatch.setattr("mmx.cli.edit.in_colour", lambda stream: True)
    line = ["edit", "face.png", "old", "-o", "out/a.png", "--steps", "3", "--overwrite", *common]
    shown = [mmx_in_process(*line, "--server", server)[2] for server in ("none", "auto")]
    found = [[row for row in err.replace(b"\n", b"\r").split(b"\r") if b"\x1b[K" in row] for err in shown]
    assert found[0] == found[1], shown
    assert [row[3:6] for row in found[0]] == [b"0/3", b"1/3", b"2/3", b"3/3"]
    assert all(row.count(b"wish ") == 1 for row in found[0])


def at_step(number: int, what, monkeypatch: pytest.MonkeyPatch, after=None) -> list[int]:
    """Does something before a step's losses are known, and before those of the next one, whoever computes them; returns
    what grows with each step."""
    likeness, looks = Terms.likeness, []

    def seen(terms: Terms, seen) -> torch.Tensor:
        looks.append(1)
        value = likeness(terms, seen)
        doing = {number: what, number + 1: after}.get(len(looks))
        return doing(value) if doing else value

    monkeypatch.setattr(Terms, "likeness", seen)
    return looks


def interrupted(value: torch.Tensor) -> torch.Tensor:
    signal.raise_signal(signal.SIGINT)
    return value


@pytest.mark.parametrize("server", ["none", "auto"])
def test_ctrl_c_writes_what_is_best_by_then(server: str, start, mmx_in_process, folder, common, monkeypatch) -> None:
    """Of two results that in work, which can be made again; the other one, and the rest of a batch, are not begun."""
    running = start()
    with monkeypatch.context() as patched:
        looks = at_step(3, interrupted, patched)
        line = ["edit", "in", "old", "-o", "out", "--steps", "2000", "-n", "2", *common, "--server", server]
        code, _, err = mmx_in_process(*line)
    (made,) = sorted(Path("out").iterdir())
    record = read_record(made.read_bytes(), made.name)
    assert code == 130 and b"interrupted: 0 of 2 inputs are done" in err
    assert 2 <= record["settings"]["until"] == len(looks) - 1 < 2000
    assert mmx_in_process("reproduce", made, "face.png", "--decoder", common[1])[0] == 0
    assert running.app.state.line.waiting == 0 and (running.app.state.line.done > 0) == (server == "auto")


@pytest.mark.parametrize("server", ["none", "auto"])
def test_results_that_were_done_before_ctrl_c_stay_whole(
    server: str, start, mmx_in_process, folder, common, monkeypatch
) -> None:
    running = start()

    def after(value: torch.Tensor) -> torch.Tensor:
        """Ctrl-C reaches the server before the step in work is over."""
        for job in running.app.state.tickets._jobs.values():
            assert job.stop.wait(60)
        return value

    with monkeypatch.context() as patched:
        at_step(6, interrupted, patched, after)  # steps 0 to 3 are of the first
        line = ["edit", "face.png", "old", "-o", "out", "--steps", "3", "-n", "3", *common, "--server", server]
        assert mmx_in_process(*line)[0] == 130
    made = sorted(Path("out").iterdir())
    untils = [read_record(path.read_bytes(), path.name)["settings"]["until"] for path in made]
    assert len(made) == 2 and untils[0] is None and untils[1] in ((1,) if server == "none" else (1, 2))
    assert all(mmx_in_process("reproduce", path, "face.png", "--decoder", common[1])[0] == 0 for path in made)


@pytest.mark.parametrize("server", ["none", "auto"])
def test_a_loss_that_is_no_number_ends_it_with_the_same_code(
    server: str, start, mmx_in_process, folder, common, monkeypatch
) -> None:
    start()
    at_step(3, lambda value: value * float("nan"), monkeypatch)
    code, _, err = mmx_in_process("edit", "face.png", "old", "-o", "out/a.png", *common, "--server", server)
    assert code == 7 and b"no number" in err and Path("out/a.png").exists()


def job_of(folder: Path, steps: int) -> Job:
    inputs = (Given("face.png", Path("face.png").read_bytes()), Given("old", b"old", "plus", is_text=True))
    return Job(inputs, Settings(steps=steps, invert=2, device="cpu"), command="edit")


def asked_for(faces: Path) -> Asked:
    return Asked("edit", {"decoder": str(faces)}, ANYWHERE)


def test_who_breaks_off_ends_the_job(start, folder, faces, monkeypatch) -> None:
    """At the step in work; whoever waits is next."""
    running = start()
    begun = threading.Event()

    def told(value: torch.Tensor) -> torch.Tensor:
        begun.set()
        return value

    looks = at_step(2, told, monkeypatch)
    for ticket in ("mine", None):
        body = pack_job(asked_for(faces), job_of(folder, 9999), ticket)
        begun.clear()
        looks.clear()
        connection = running.connect()
        connection.request("POST", "/v1/jobs", body)
        assert begun.wait(60)
        connection.sock.close()
        status, answer = running.ask("/v1/jobs", pack_job(asked_for(faces), job_of(folder, 1)))  # waits for its turn
        assert status == 200 and not unpack_done(answer).stopped and len(looks) < 9000
    assert running.app.state.line.waiting == 0 and not running.app.state.tickets._jobs


def test_a_server_that_dies_in_the_middle_is_done_without(start, mmx_in_process, folder, common, monkeypatch) -> None:
    """A stream that ends without a result is none."""
    start()
    monkeypatch.setattr(app, "TRANSLATED", (*app.TRANSLATED[:2], lambda done: 1 / 0))
    line = ["edit", "face.png", "old", "-o", "out/a.png", "--steps", "2", *common, "--server", "auto"]
    code, _, err = mmx_in_process(*line)
    assert code == 1 and b"bug: ZeroDivisionError" in err and not Path("out").exists()
    monkeypatch.setattr("mmx.serving.steps._end", nothing)
    assert mmx_in_process(*line)[0] == 0 and Path("out/a.png").exists()


async def nothing(*_: object) -> bytes:
    return b""


def streamed(running: Running, query: str, faces: Path) -> list[dict]:
    """The lines that anybody is told of an edit."""
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
        for part in (
            (b"source", b'; filename="face.png"', Path("face.png").read_bytes()),
            (b"plus", b"", b"old"),
        )
    )
    kind = {"Content_Type": "multipart/form-data; boundary=x", "Accept": "application/x-ndjson"}
    path = f"/v1/edit?decoder={faces}&invert=2&device=cpu{query}"
    status, answer = running.ask(path, body + b"--x--\r\n", **kind)
    assert status == 200, answer
    return [json.loads(line) for line in answer.splitlines()]


def test_anybody_is_told_of_steps_and_may_end_them(start, folder, faces, monkeypatch) -> None:
    running = start()
    *steps, done = streamed(running, "&steps=3", faces)
    assert [(one["step"], one["of"]) for one in steps] == [(k, 3) for k in range(4)] and steps[0]["losses"][
        "wish"
    ] > 0.9
    wanted = Served(running_address(running), asked_for(faces)).run(job_of(folder, 3)).artifacts[0].data
    assert done["event"] == "done" and base64.b64decode(done["artifacts"][0]["base64"]) == wanted
    assert json.loads(running.ask("/v1/stop?ticket=t", b"")[1]) == {"ticket": "t", "found": False}

    def stop(value: torch.Tensor) -> torch.Tensor:
        assert json.loads(running.ask("/v1/stop?ticket=t", b"")[1])["found"]
        status, answer = running.ask("/v1/jobs", pack_job(asked_for(faces), job_of(folder, 1), "t"))
        assert status == 400 and b"has it" in answer
        return value

    at_step(3, stop, monkeypatch)
    *steps, done = streamed(running, "&steps=999&ticket=t", faces)
    assert len(steps) == 3 and done["stopped"] == "interrupted" and done["artifacts"]


def running_address(running: Running):
    from mmx.serving.address import Address

    return Address(Path(running.where))


def test_what_goes_wrong_after_the_first_step_is_the_last_line(start, folder, faces, monkeypatch) -> None:
    running = start(Limits(room=1))
    at_step(3, lambda value: 1 / 0, monkeypatch)
    *steps, last = streamed(running, "&steps=9", faces)
    assert len(steps) == 2 and last["event"] == "error" and "ZeroDivisionError" in last["message"]


def test_a_served_edit_imports_nothing_heavy(start, folder, common) -> None:
    running = start()
    script = "import sys\nfrom mmx.cli.app import main\ntry:\n main(sys.argv[1:])\nfinally:\n print(*sys.modules)"
    line = ["edit", "face.png", "old", "-o", "out/a.png", "--steps", "1", *common, "--server", running.where]
    done = subprocess.run(
        [sys.executable, "-c", script, *line],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0 and Path("out/a.png").exists(), done.stderr
    heavy = {"torch", "numpy", "PIL", "soundfile", "av", "huggingface_hub", "starlette", "uvicorn", "rich.console"}
    assert not heavy & set(done.stdout.split())
