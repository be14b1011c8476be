"""What shells do to a command: closed streams, a full disk, poor encodings, launchers' variables, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("line", ["train-bridge --help", "--help", "sound2img ä→.wav"])
def test_letters_that_an_encoding_lacks_are_no_bug(line: str) -> None:
    code, out, err = shell(f"mmx {line}", PYTHONIOENCODING="ascii", COLUMNS="100")
    assert code == (2 if ".wav" in line else 0) and "bug" not in err, err
    assert (out + err).isascii() and "Traceback" not in err
