"""`mmx serve`: what commands get from it is what they make themselves; who may ask, and what bad requests do."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmx.errors import ModelError, UsageError
from mmx.media.given import Given, Job
from mmx.options import Settings
from mmx.serving.address import Address, find_server, runtime_folder
from mmx.serving.client import Served
from mmx.serving.line import Full, Left, Line, Work
from mmx.serving.wire import ANYWHERE, Asked, pack, pack_job, unpack_done
from tests.conftest import ROOT

pytest.importorskip("starlette")
from mmx.serving.app import Limits, make_app
from mmx.serving.listen import listen, on_port, on_socket
from mmx.serving.openapi import document, page
from mmx.serving.query import parameters
from mmx.tasks import TASKS
from tests.running_server import both_ways


def asked_for(models: tuple[Path, Path]) -> Asked:
    return Asked("sound2img", {"bridge": str(models[0]), "decoder": str(models[1])}, ANYWHERE)


def plain(said: bytes) -> bytes:
    """Without times."""
    return re.sub(rb"\d+\.\d+(e-\d+)?( s\b|(?=[,}]))", b"", said)


def timeless(found: tuple[int, bytes, bytes, dict[str, bytes]]) -> tuple[int, bytes, bytes, dict[str, bytes]]:
    """What `both_ways` found, without times; a payload on stdout stays as it is."""
    code, out, err, files = found
    return code, plain(out) if b"schema" in out else out, plain(err), files


LINES = [
    "{bark} -o out/a.png",
    "{bark} -o out/a.png --seed 7 -n 2 --grid --quiet",
    "{bark} {sea} -o out --json",
    "{bark} {sea} -o out --resume",
    "- -o -",
    "{bark} -o out/a.png --mix {sea}:0.3 --start 0.1 --plus {sea}",
    "junk.wav -o out/a.png",
    "junk.wav {bark} -o out",
    "junk.wav -o out/a.png --json",
    "{bark} -o out/a.txt",
    "{bark} -o out/a.png --encoder nowhere",
    "{bark} -o out/a.png --dtype fp3",
    "{bark} -o out/a.png --device cuda:77",
    "{bark} -o out/a.png --decoder damaged",
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_does_with_a_server_what_it_does_without(
    line: str, start, mmx_in_process, one_step_models, bark: Path, sea: Path, tmp_path: Path, monkeypatch
) -> None:
    """Its files, what it says, and its exit code; the server is really asked where there is anything to compute."""
    monkeypatch.chdir(tmp_path)
    bridge, decoder = (os.path.relpath(path) for path in one_step_models)
    Path("junk.wav").write_bytes(b"junk" * 100)
    Path("damaged").mkdir()
    words = line.format(bark=bark, sea=sea).split()
    words += ["--bridge", bridge] + ([] if "--decoder" in words else ["--decoder", decoder])
    running = start()
    alone, served = both_ways(mmx_in_process, ["sound2img", *words], bark.read_bytes(), monkeypatch)
    assert timeless(alone) == timeless(served)
    before_any_work = "a.txt" in line or "nowhere" in line
    assert (running.app.state.line.done == 0) == before_any_work


def test_the_other_commands_are_served_too(
    start, mmx_in_process, face_options, speech_options, low: Path, tmp_path: Path
) -> None:
    running = start()
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "photo.png")
    for command, given, out, options in (
        ("voice2face", low, "face.png", [*face_options, "--average"]),
        ("img2speech", tmp_path / "photo.png", "said.wav", [*speech_options, "--spectrogram", tmp_path / "seen.png"]),
    ):
        made = []
        for server in ("none", running.where):
            code, _, err = mmx_in_process(
                command, given, "-o", tmp_path / out, *options, "--overwrite", "--server", server
            )
            assert code == 0, err.decode()
            made.append((tmp_path / out).read_bytes())
        assert made[0] == made[1]
    assert running.app.state.line.done == 4


def test_a_server_that_must_answer_and_one_that_need_not(
    mmx_in_process, one_step_options, bark: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    line = ("sound2img", bark, "-o", tmp_path / "a.png", *one_step_options)
    code, _, err = mmx_in_process(*line, "--server", tmp_path / "no.sock")
    assert code == 5 and b"no server answers" in err and not (tmp_path / "a.png").exists()
    monkeypatch.setenv("MMX_SERVER", str(tmp_path / "no.sock"))
    assert mmx_in_process(*line)[0] == 5
    (tmp_path / "mmx").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:  # left by a server that was killed
        dead.bind(str(tmp_path / "mmx" / "serve.sock"))
    monkeypatch.setenv("MMX_SERVER", "auto")
    assert mmx_in_process(*line)[0] == 0


def test_a_server_that_goes_away_in_the_middle_of_a_batch_is_done_without(
    start, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path, monkeypatch
) -> None:
    start()
    served, runs = Served.run, []

    def once(self: Served, job: Job) -> Any:
        runs.append(job)
        if len(runs) == 2:
            self.address = Address(tmp_path / "gone.sock", required=False)
        return served(self, job)

    monkeypatch.setattr(Served, "run", once)
    code, _, err = mmx_in_process("sound2img", bark, sea, bark, "-o", tmp_path, *one_step_options, "--server", "auto")
    assert code == 2 and b"two inputs" in err  # before any work
    given = ("sound2img", bark, sea, "-o", tmp_path / "out", *one_step_options)
    code, _, err = mmx_in_process(*given, "--server", "auto")
    assert code == 0 and len(list((tmp_path / "out").iterdir())) == 2 and len(runs) == 2, err.decode()


def test_nobody_else_may_use_the_socket(start, tmp_path: Path, monkeypatch) -> None:
    running = start()
    path = Path(running.where)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(UsageError, match="listens there already"):
        on_socket(None)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match="another user"):
        Served(Address(path), Asked("sound2img", {}, ANYWHERE))
    if os.getuid():  # what belongs to root is trusted
        with pytest.raises(UsageError, match="another user"):
            runtime_folder()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path.parent.chmod(0o750)
    with pytest.raises(UsageError, match="others may enter"):
        find_server("auto")
    path.parent.chmod(0o700)


def test_a_port_is_for_who_has_the_token(
    start, mmx_in_process, one_step_options, bark: Path, tmp_path: Path, monkeypatch
) -> None:
    running = start(port=True)
    (file,) = running.listener.files
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.read_text() == running.listener.token
    pages = ("/", "/health", "/models", "/openapi.json", "/v1/sound2img", "/v1/open", "/v1/jobs", "/nothing")
    for given in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {running.listener.token[:-1]}"}):
        answers = [running.ask(path, b"x" if path.startswith("/v1") else None, **given) for path in pages]
        assert {status for status, _ in answers} == {401} and running.app.state.line.done == 0
    assert running.ask("/health", Authorization=f"Bearer {running.listener.token}")[0] == 200
    line = ("sound2img", bark, "-o", tmp_path / "a.png", *one_step_options, "--server", running.where)
    assert mmx_in_process(*line)[0] == 0 and running.app.state.line.done == 2
    monkeypatch.setenv("MMX_SERVER_TOKEN", "another")
    code, _, err = mmx_in_process(*line, "--overwrite")
    assert code == 2 and b"token" in err
    for host in ("0.0.0.0", "192.168.0.7", "example.org"):
        with pytest.raises(UsageError, match="own addresses"):
            on_port(host, 0)
        with pytest.raises(UsageError, match="own addresses"):
            find_server(f"http://{host}:1")


def test_200_requests_of_16_clients(start, one_step_models, bark: Path) -> None:
    """None is lost or mistaken for another, jobs run in the order in which they came, and nothing piles up."""
    running, asked, data = start(Limits(room=300)), asked_for(one_step_models), bark.read_bytes()
    ran, run = [], running.app.state.shelf.run
    running.app.state.shelf.run = lambda *given: (ran.append(given[1].settings.seed), run(*given))[1]

    def one(seed: int) -> bytes:
        job = Job((Given("bark.wav", data),), Settings(seed=seed))
        status, body = running.ask("/v1/jobs", pack_job(asked, job))
        assert status == 200, body
        return unpack_done(body).artifacts[0].data

    alone = [one(seed) for seed in range(4)]
    before = resident()
    with ThreadPoolExecutor(16) as clients:
        made = list(clients.map(one, (number % 4 for number in range(200))))
    assert made == [alone[number % 4] for number in range(200)] and len(set(alone)) == 4
    assert len(ran) == 204 and running.app.state.line.waiting == 0 and len(running.app.state.shelf) == 1
    assert resident() - before < 40


def resident() -> float:
    """This process's memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_jobs_run_in_the_order_in_which_they_came_and_no_more_wait_than_may() -> None:
    gate, ran = threading.Event(), []

    async def stays() -> bool:
        return False

    async def leaves() -> bool:
        return True

    async def all_of_them() -> list[Any]:
        line = Line(4)
        first = asyncio.create_task(line.do(Work(gate.wait, stays)))
        rest = [asyncio.create_task(line.do(Work(lambda k=k: ran.append(k), stays))) for k in (1, 2)]
        gone = asyncio.create_task(line.do(Work(lambda: ran.append("gone"), leaves)))
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await line.do(Work(lambda: ran.append("too many"), stays))
        assert line.idle_for() == 0
        with pytest.raises(Left):
            await gone
        gate.set()
        await asyncio.gather(first, *rest)
        return [line.waiting, line.done]

    assert asyncio.run(all_of_them()) == [0, 4] and ran == [1, 2]


def test_a_full_queue_is_a_429_and_a_command_waits_for_its_turn(start, one_step_models, bark: Path) -> None:
    running, asked = start(Limits(room=1)), asked_for(one_step_models)
    gate, inside = threading.Event(), threading.Event()
    run = running.app.state.shelf.run

    def held(*given: Any) -> Any:
        inside.set()
        assert gate.wait(60)
        return run(*given)

    running.app.state.shelf.run = held
    job = Job((Given("bark.wav", bark.read_bytes()),), Settings())
    served = Served(Address(Path(running.where)), asked)
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(served.run, job)
        assert inside.wait(60)
        status, body = running.ask("/v1/jobs", pack_job(asked, job))
        assert status == 429 and json.loads(body)["error"] == "Full"
        second = clients.submit(served.run, job)
        assert running.ask("/health")[0] == 200  # which waits for no model
        gate.set()
        assert first.result().artifacts[0].data == second.result().artifacts[0].data


BAD = [
    ("/v1/sound2img", b"", 422),
    ("/v1/sound2img", b"junk" * 100, 422),
    ("/v1/sound2img?seed=x", b"a", 400),
    ("/v1/sound2img?seed=-1", b"a", 400),
    ("/v1/sound2img?steps=0", b"a", 400),
    ("/v1/sound2img?nonsense=1", b"a", 400),
    ("/v1/sound2img?n=2", b"a", 400),
    ("/v1/sound2img?n=99999999", b"a", 400),
    ("/v1/sound2img?device=tpu", b"a", 400),
    ("/v1/sound2img?decoder=/nowhere", b"a", 409),
    ("/v1/sound2img?gain=nan", b"a", 400),
    ("/v1/text2img", b"\xff\xfe\xff", 422),
    ("/v1/nothing", b"a", 404),
    ("/v1/open", b"{}", 422),
    ("/v1/open", b"[" * 100_000, 422),
    ("/v1/jobs", b'{"sizes": [-1]}\n', 422),
    ("/v1/jobs", b'{"sizes": [3], "version": "0"}\nabc', 400),
    ("/v1/jobs", b'{"sizes": [9999]}\nabc', 422),
    ("/v1/jobs", b"\x00\xff", 422),
    ("/health", b"a", 405),
    ("/v1/sound2img", b"a" * 2_000_000, 413),
]


def test_bad_requests_are_told_so_and_take_nothing_down(start, one_step_models, bark: Path) -> None:
    running = start(Limits(size=1_000_000, patience=0.5))
    for path, body, wanted in BAD:
        status, answer = running.ask(path, body)
        assert status == wanted, (path, status, answer)
        if wanted != 405:
            about = json.loads(answer)
            assert about["schema"] == "mmx.error/1" and "bug" not in about["message"], about
    with running.raw() as half:  # slow: what was promised never comes
        half.sendall(b"POST /v1/sound2img HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        assert b" 408 " in half.recv(1000)
    with running.raw() as cut:  # broken off
        cut.sendall(b"POST /v1/sound2img HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    with running.raw() as noise:
        noise.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b" 400 " in noise.recv(1000)
    header = {"inputs": [], "settings": {}, "indices": [0], "layout": "single", "strict": False}
    for wrong in ({"inputs": [1]}, {"settings": {"x": 1}}, {"indices": "x"}, {"threads": 10**9}, {"placement": {}}):
        about = asked_for(one_step_models).as_dict() | header | wrong
        status, _ = running.ask("/v1/jobs", pack(about, [b"a"] * len(about["inputs"])))
        assert status == 422, wrong
    job = Job((Given("bark.wav", bark.read_bytes()),), Settings())
    assert Served(Address(Path(running.where)), asked_for(one_step_models)).run(job).artifacts
    assert running.app.state.line.waiting == 0


def test_a_model_that_can_not_be_loaded_takes_no_other_down_and_changed_files_are_loaded_anew(
    start, one_step_models, bark: Path, tmp_path: Path
) -> None:
    import shutil

    running = start()
    own = tmp_path / "own"
    shutil.copytree(one_step_models[0], own)
    address, job = Address(Path(running.where)), Job((Given("bark.wav", bark.read_bytes()),), Settings())
    asked = asked_for((own, one_step_models[1]))
    first = Served(address, asked).run(job)
    translator = running.app.state.shelf.take(asked)
    assert running.app.state.shelf.take(asked) is translator
    weights = (own / "model.safetensors").read_bytes()
    (own / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(ModelError):
        Served(address, asked)
    assert Served(address, asked_for(one_step_models)).run(job).artifacts[0].data
    (own / "model.safetensors").write_bytes(weights)
    assert Served(address, asked).run(job).artifacts[0].data == first.artifacts[0].data
    assert running.app.state.shelf.take(asked) is not translator


def test_anybody_can_ask_with_a_body_or_a_form(start, one_step_models, bark: Path, sea: Path) -> None:
    running = start()
    bridge, decoder = one_step_models
    models = f"bridge={bridge}&decoder={decoder}"
    status, picture = running.ask(f"/v1/sound2img?{models}&seed=3&name=bark.wav", bark.read_bytes())
    job = Job((Given("bark.wav", bark.read_bytes()),), Settings(seed=3))
    wanted = Served(Address(Path(running.where)), asked_for(one_step_models)).run(job).artifacts[0].data
    assert status == 200 and picture == wanted
    status, body = running.ask(f"/v1/sound2img?{models}&n=2", bark.read_bytes(), Accept="application/json")
    about = json.loads(body)
    assert status == 200 and about["schema"] == "mmx.served/1" and len(about["artifacts"]) == 2
    for artifact in about["artifacts"]:
        assert Image.open(io.BytesIO(base64.b64decode(artifact["base64"]))).format == "PNG"
        assert artifact["provenance"]["synthetic"] is True
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n' % (role, name, data)
        for role, name, data in (
            (b"source", b"bark.wav", bark.read_bytes()),
            (b"mix:0.3", b"sea.wav", sea.read_bytes()),
        )
    )
    kind = {"Content_Type": "multipart/form-data; boundary=x", "Accept": "application/json"}
    status, body = running.ask(f"/v1/sound2img?{models}", form + b"--x--\r\n", **kind)
    inputs = json.loads(body)["artifacts"][0]["provenance"]["inputs"]
    assert [(one["role"], one["name"], one["weight"]) for one in inputs] == [
        ("source", "bark.wav", 1.0),
        ("mix", "sea.wav", 0.3),
    ]
    assert running.ask(f"/v1/sound2img?{models}", b"--y", Content_Type="multipart/form-data; boundary=x")[0] == 422


def test_the_document_names_every_parameter_and_the_page_needs_nothing_from_elsewhere(start) -> None:
    running = start()
    about = json.loads(running.ask("/openapi.json")[1])
    assert about["openapi"].startswith("3.1") and about == document(Limits().size)
    for command in TASKS:
        named = {one["name"] for one in about["paths"][f"/v1/{command}"]["post"]["parameters"]}
        assert named == parameters(command).keys() and {"seed", "n", "bridge"} <= named
    assert {path for path, one in about["paths"].items() if "x-ndjson" in str(one)} == {"/v1/edit", "/v1/avatar"}
    assert "ticket" in parameters("edit") and about["paths"]["/v1/stop"]["post"]["parameters"]
    status, shown = running.ask("/")
    assert status == 200 and shown.decode() == page(about) and b"//" not in shown.replace(b"http://mmx/", b"")


def test_a_server_that_nobody_asks_leaves(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    listener, said = on_socket(None), []
    listen(make_app(Limits()), listener, 0.05, lambda: said.append("ready"))
    listener.close()
    assert said == ["ready"] and not Path(listener.where).exists()


def test_sigterm_ends_the_server_when_what_runs_is_done(python, one_step_models, bark: Path, tmp_path: Path) -> None:
    own = os.environ | {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    server = subprocess.Popen(
        [*python, "-m", "mmx", "serve"], env=own, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        where = Path(server.stderr.readline().rpartition(" ")[2].strip())
        job = Job((Given("bark.wav", bark.read_bytes()),), Settings())
        body = pack_job(asked_for(one_step_models), job)  # its models are not loaded yet: that takes a while
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(where))
        connection.sendall(b"POST /v1/jobs HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(where))
                other_connection = HTTPConnection("localhost")
                other_connection.sock = probe
                other_connection.request("GET", "/health")
                if json.loads(other_connection.getresponse().read())["waiting"]:
                    break
        server.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert b"200 OK" in answer and unpack_done(answer.partition(b"\r\n\r\n")[2]).artifacts
        assert server.wait(60) == 0 and not where.exists(), server.stderr.read()
    finally:
        server.kill()
        server.communicate()


def test_a_served_command_imports_nothing_heavy(start, one_step_options, bark: Path, tmp_path: Path) -> None:
    running = start()
    script = "import sys\nfrom mmx.cli.app import main\ntry:\n main(sys.argv[1:])\nfinally:\n print(*sys.modules)"
    line = ["sound2img", bark, "-o", tmp_path / "a.png", *one_step_options, "--server", running.where]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, line)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0 and (tmp_path / "a.png").exists(), done.stderr
    heavy = {"torch", "numpy", "PIL", "soundfile", "av", "huggingface_hub", "starlette", "uvicorn", "rich.console"}
    assert not heavy & set(done.stdout.split())


def test_what_a_server_would_have_to_fetch_is_left_to_the_command(
    start, mmx_in_process, bark: Path, tmp_path: Path, monkeypatch
) -> None:
    running = start()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = ("sound2img", bark, "-o", tmp_path / "a.png", "--decoder", "hf-hub:nobody/nothing@" + "0" * 40)
    found = [mmx_in_process(*line, "--server", server) for server in ("none", running.where)]
    assert found[0] == found[1] and found[0][0] == 5 and running.app.state.line.done == 1
