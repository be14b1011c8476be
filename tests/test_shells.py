"""What shells do to a command: closed streams, a full disk, poor encodings, launchers' variables, Ctrl-C."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.image_encoders import open_image_encoder
from mmx.bridges.words_caption import CaptionBridge
from mmx.cli.batch import each
from mmx.decoders.speech import load_vocoder
from mmx.decoders.unit_vocoder import UnitEncoder
from mmx.errors import InputError, Interrupted
from mmx.launch import Launched, launched
from mmx.models.store import Located
from tests import tiny, tiny_speech
from tests.conftest import ROOT

BARK = ROOT / "assets" / "samples" / "bark.wav"


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """A line of bash in which `mmx` is this one: exit code, stdout, stderr."""
    line = line.replace("mmx ", f"{sys.executable} -m mmx ", 1).replace("BARK", str(BARK))
    own = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=own, cwd=ROOT, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("mmx --version >&-", 2, "stdout is closed"),
        ("mmx --version >/dev/full", 2, "stdout: No space left"),
        ("mmx --help >/dev/full", 2, "stdout: No space left"),
        ("mmx sound2img nope.wav --json >/dev/full", 2, "nope.wav: no such file"),
        ("mmx sound2img nope.wav --json >&-", 2, "nope.wav: no such file"),
        ("mmx sound2img BARK -o - >&-", 2, "stdout is closed"),
        ("mmx sound2img - -o nothing.png <&-", 2, "stdin is closed"),
        ("mmx inspect - <&-", 2, "stdin is closed"),
        ("mmx --version | true", 0, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_one_line(line: str, code: int, says: str) -> None:
    got, out, err = shell(line)
    assert got == code and says in err, err
    assert out == "" and not any(bad in err for bad in ("Traceback", "bug", "Exception"))
    assert len(err.splitlines()) <= 2  # the error and its hint


def test_what_nobody_can_hear_changes_nothing(tmp_path: Path) -> None:
    assert shell("mmx sound2img nope.wav 2>&-") == (2, "", "")
    assert shell("mmx sound2img nope.wav 2>/dev/full") == (2, "", "")
    assert shell("mmx --version 2>&- <&-")[0] == 0


@pytest.mark.parametrize("line", ["train-bridge --help", "--help", "sound2img ä→.wav", "models ls"])
def test_letters_that_an_encoding_lacks_are_no_bug(line: str) -> None:
    code, out, err = shell(f"mmx {line}", PYTHONIOENCODING="ascii", COLUMNS="100")
    assert code == (2 if ".wav" in line else 0) and "bug" not in err, err
    assert (out + err).isascii() and "Traceback" not in err


LAUNCH = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (LAUNCH, Launched(1, 1, 2)),
        ({}, Launched()),
        ({"RANK": ""}, Launched()),
        ({"RANK": "1"}, Launched()),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Launched()),
        ({name: value for name, value in LAUNCH.items() if name != "LOCAL_RANK"}, Launched()),  # as pods have it
        (LAUNCH | {"RANK": "two"}, Launched()),
        (LAUNCH | {"RANK": "2"}, Launched()),
        (LAUNCH | {"WORLD_SIZE": ""}, Launched()),
    ],
)
def test_work_is_shared_only_by_who_was_launched(monkeypatch, environment: dict[str, str], found: Launched) -> None:
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == found
    from mmx.device import pick_device
    from mmx.training.engine.parallel import Team

    assert pick_device("auto") and (found.world > 1 or Team().world == 1)


def test_a_rank_without_a_launcher_leaves_nothing_out(
    mmx_in_process, debug_options, tmp_path: Path, bark: Path, sea: Path, monkeypatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    code, _, err = mmx_in_process("sound2img", bark, sea, "-o", tmp_path / "all", *debug_options)
    assert code == 0 and len(list((tmp_path / "all").iterdir())) == 2 and b"RANK" in err
    for name, value in LAUNCH.items():
        monkeypatch.setenv(name, value)
    code, _, err = mmx_in_process("sound2img", bark, sea, "-o", tmp_path / "half", *debug_options)
    assert code == 0 and [path.name for path in (tmp_path / "half").iterdir()] == ["sea.png"]
    assert b"process 2 of 2: 1 of 2 results" in err


@pytest.mark.parametrize("resume", [False, True])
def test_an_interrupted_batch_says_what_is_done_and_how_to_go_on(
    mmx_in_process, debug_options, tmp_path: Path, bark: Path, sea: Path, monkeypatch, resume: bool
) -> None:
    from mmx.media.files import Source

    read = Source.read

    def stopped(source: Source) -> bytes:
        if source.name == str(sea):
            raise KeyboardInterrupt
        return read(source)

    monkeypatch.setattr(Source, "read", stopped)
    line = ("sound2img", bark, sea, "-o", tmp_path / "out", *debug_options, *(["--resume"] if resume else []))
    code, _, err = mmx_in_process(*line)
    assert code == 130 and b"mmx: interrupted: 1 of 2 inputs are done" in err
    assert (b"the same command goes on" if resume else b"--resume") in err


def test_who_stops_many_inputs_learns_what_is_done() -> None:
    failed: list[int] = []

    def work(item: int) -> None:
        if item == 1:
            raise InputError("unreadable")
        if item == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="2 of 5 inputs are done, 1 failed") as stopped:
        each(range(5), work, name=str, failed=lambda item, _: failed.append(item), go_on="again")
    assert failed == [1] and stopped.value.exit_code == 130 and stopped.value.hint == "again"


@pytest.mark.parametrize(
    "line",
    [
        "sound2img BARK -o OUT --bridge hf-hub:org/none",
        "eval sound2img --data https://host.invalid/x.tar -o OUT",
        "train-bridge sound2img --data https://host.invalid/{000..001}.tar -o OUT",
        "tag BARK --space hf-hub:org/none",
    ],
)
def test_offline_nothing_is_fetched(mmx_in_process, tmp_path: Path, monkeypatch, line: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    words = [word.replace("BARK", str(BARK)).replace("OUT", str(tmp_path / "out")) for word in line.split()]
    code, _, err = mmx_in_process(*words, "--offline")
    assert code == 5 and b"the network is off (--offline" in err and os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"encoding": "ascii"}, False),
    ],
)
def test_show_draws_in_colour_for_a_terminal_that_has_any(
    mmx_in_process, monkeypatch, tmp_path: Path, terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    class Out(io.TextIOWrapper):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = Out(io.BytesIO(), environment.get("encoding", "utf8"))
    monkeypatch.setattr(sys, "stdout", out)
    assert mmx_in_process("show", BARK)[0] == 0
    drawn = out.buffer.getvalue().decode()
    assert ("\x1b[" in drawn) == coloured and drawn.isascii() != coloured
    assert coloured or len(set(drawn)) > 4  # it is drawn nevertheless


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries show their bars until they are told not to."""
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", True)


def _listen(folder: Path) -> None:
    Listener.load(Located("clap", tiny.clap(folder)))


def _look(folder: Path) -> None:
    open_image_encoder(Located("dinov2", tiny_speech.dinov2(folder)))


def _caption(folder: Path) -> None:
    captioner, speaker = tiny_speech.captioner(folder)
    CaptionBridge.load(Located("captioner", captioner, speaker), None)


def _units(folder: Path) -> None:
    UnitEncoder.load(tiny_speech.hubert(folder))


def _vocode(folder: Path) -> None:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    sizes = {"upsample_initial_channel": 16, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    SpeechT5HifiGan(SpeechT5HifiGanConfig(**sizes)).save_pretrained(folder)
    load_vocoder(folder)


@pytest.mark.parametrize("load", [_listen, _look, _caption, _units, _vocode])
def test_no_model_shows_the_bars_of_its_library(bars, capfd, tmp_path: Path, load) -> None:
    load(tmp_path / "model")
    assert "Loading" not in capfd.readouterr().err


def test_quiet_is_said_to_libraries_before_they_are_imported(mmx_in_process, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    assert mmx_in_process("sound2img", "nope.wav", "--quiet")[0] == 2
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
