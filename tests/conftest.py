"""Shared fixtures: sounds and pictures made here, the debug models, and a way to run the command."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
RATE = 16_000
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: there is a worker for each core


def tone(seconds: float = 1.0, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(autouse=True)
def network_as_before() -> Iterator[None]:
    """What `--offline` forbids to this process is forbidden to the test that gave it alone."""
    before = os.environ.get("HF_HUB_OFFLINE")
    yield
    os.environ.pop("HF_HUB_OFFLINE", None)
    if before is not None:
        os.environ["HF_HUB_OFFLINE"] = before


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests, and the commands that they start, leave the user's cache and config alone."""
    os.environ["MMX_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["MMX_CONFIG"] = str(tmp_path_factory.mktemp("config") / "config.toml")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the second device known before any test trains: torch's autograd counts the devices when it first runs."""
    if any("second_device" in item.fixturenames for item in session.items):
        from tests.devices import register

        register()


@pytest.fixture
def bark() -> Path:
    return ROOT / "assets" / "samples" / "bark.wav"


@pytest.fixture
def low() -> Path:
    return ROOT / "assets" / "samples" / "voices" / "low.wav"


@pytest.fixture
def high() -> Path:
    return ROOT / "assets" / "samples" / "voices" / "high.wav"


@pytest.fixture
def sea() -> Path:
    return ROOT / "assets" / "samples" / "sea.wav"


@pytest.fixture
def second_device(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a device beside the CPU, for --device: what a GPU would be (tests/devices.py)."""
    from mmx.device import KINDS
    from tests.devices import NAME, register

    register()
    monkeypatch.setitem(KINDS, NAME, lambda: True)
    return NAME


@pytest.fixture(scope="session")
def debug_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A decoder and a bridge, tiny and random, in the real file formats."""
    from tests.debug import make_bridge, make_decoder

    folder = tmp_path_factory.mktemp("debug")
    decoder = make_decoder(folder / "decoder")
    return make_bridge(folder / "bridge", decoder), decoder


@pytest.fixture(scope="session")
def one_step_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As `debug_models`, with a decoder that draws in one step: for processes of their own, which start faster."""
    from tests.debug import make_bridge, make_one_step_decoder

    folder = tmp_path_factory.mktemp("one-step")
    decoder = make_one_step_decoder(folder / "decoder")
    return make_bridge(folder / "bridge", decoder), decoder


@pytest.fixture(scope="session")
def face_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A voice bridge and a face decoder, tiny and random, in the real file formats."""
    from tests.debug import make_face_decoder, make_voice_bridge

    folder = tmp_path_factory.mktemp("faces")
    decoder = make_face_decoder(folder / "decoder")
    return make_voice_bridge(folder / "bridge", decoder), decoder


@pytest.fixture(scope="session")
def face_options(face_models: tuple[Path, Path]) -> list[str]:
    bridge, decoder = face_models
    return ["--bridge", str(bridge), "--decoder", str(decoder), "--steps", "2"]


@pytest.fixture(scope="session")
def speech_models(tmp_path_factory: pytest.TempPathFactory, debug_models: tuple[Path, Path]) -> tuple[Path, Path, Path]:
    """An image bridge, a speech decoder and the image decoder that it looks with, tiny and random, in the real file
    formats.
    """
    from tests.debug import make_image_bridge, make_speech_decoder

    folder = tmp_path_factory.mktemp("speech")
    decoder = make_speech_decoder(folder / "decoder")
    return make_image_bridge(folder / "bridge", decoder, debug_models[1]), decoder, debug_models[1]


@pytest.fixture(scope="session")
def speech_options(speech_models: tuple[Path, Path, Path]) -> list[str]:
    bridge, decoder, encoder = map(str, speech_models)
    return ["--bridge", bridge, "--decoder", decoder, "--encoder", encoder]


@pytest.fixture(scope="session")
def one_step_options(one_step_models: tuple[Path, Path]) -> list[str]:
    bridge, decoder = map(str, one_step_models)
    return ["--bridge", bridge, "--decoder", decoder]


@pytest.fixture(scope="session")
def debug_options(debug_models: tuple[Path, Path]) -> list[str]:
    bridge, decoder = debug_models
    return ["--bridge", str(bridge), "--decoder", str(decoder), "--steps", "2"]


def training(task: str, data: Path, run: Path, decoder: str | Path, *rest: object, steps: int = 2) -> tuple:
    """The arguments that train a bridge for a few small steps on the CPU."""
    command = ("train-bridge", task, "--data", data, "-o", run, "--decoder", decoder, "--max-steps", steps)
    return (*command, "--prior-steps", steps, "--batch-size", 6, "--device", "cpu", "--quiet", *rest)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A command that does what `python` does, without the seconds of its imports: see tests/forked.py.

    Only for processes that import torch anyway, and that read nothing from the environment while they import.
    """
    if not hasattr(os, "pidfd_open"):  # only Linux has it
        yield [sys.executable]
        return
    script, place = ROOT / "tests" / "forked.py", tmp_path_factory.mktemp("forked") / "socket"
    line, own = [sys.executable, script, "serve", place], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, cwd=ROOT, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"ready\n"
        yield [sys.executable, "-IS", str(script), "ask", str(place)]
        parent.stdin.close()


@pytest.fixture(scope="session")
def two_processes(python: list[str]) -> list[str]:
    """The beginning of a line that has torchrun start two processes: what follows are words for `python`."""
    # the launcher takes a port of its own each time: one that was free at the session's start need not be now
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    return [*python, *launch, *python]


@pytest.fixture
def small_bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bridges that are trained in this process have a hundredth of the weights."""
    from functools import partial

    from mmx.bridges.base import BridgeConfig
    from mmx.training.bridges import image, points, sound, voice

    monkeypatch.setattr(points, "BridgeConfig", partial(BridgeConfig, channels=(8, 16, 16)))
    for task in (sound.SoundBridgeTask, voice.VoiceBridgeTask):
        monkeypatch.setattr(task, "prior_sizes", {"width": 32, "depth": 1})
    monkeypatch.setattr(image, "WRITER", {"width": 32, "depth": 1, "heads": 2})


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts servers in this process (`tests.running_server`)."""
    from tests.running_server import servers

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with servers() as run:
        yield run


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system on S3's own protocol, as a server on this machine speaks it, with an empty bucket. Skips where its
    packages are not."""
    moto, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    own = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y"}
    for name, value in (own | {"DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")  # of what tests before left
    urllib.request.urlopen(reset).close()
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("bucket")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def mmx_in_process(capsysbinary: pytest.CaptureFixture[bytes]):
    """The command in this process (models stay loaded): (exit code, stdout, stderr)."""
    from mmx.cli.app import main

    def run(*arguments: str | Path) -> tuple[int, bytes, bytes]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsysbinary.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return run
