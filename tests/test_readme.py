"""The README's commands run, and the sample sounds are what their script makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_mmx

README = (ROOT / "README.md").read_text(encoding="utf8")


def commands() -> list[str]:
    """The lines of the README's blocks marked `run`."""
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 3


@pytest.mark.parametrize("line", commands())
def test_readme_command(line: str, tmp_path: Path) -> None:
    words = [
        part.replace("mmx", f"{sys.executable} -m mmx", 1) if part.startswith("mmx ") else part
        for part in re.split(r"(?<=\|) ", line)
    ]
    script = " ".join(words).replace("assets/samples", str(ROOT / "assets" / "samples"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_samples_are_made_by_their_script(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "assets" / "samples" / "make.py", tmp_path],
        check=True,
        cwd=ROOT,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
    )
    for path in (ROOT / "assets" / "samples").glob("*.wav"):
        assert (tmp_path / path.name).read_bytes()[:44] == path.read_bytes()[:44]


def test_every_option_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(--[a-z0-9-]+)", README))
    helps = b"".join(
        run_mmx(command, "--help").stdout
        for command in ("sound2img", "train-bridge", "train-decoder", "eval", "reproduce")
    )
    assert named and all(option.encode() in helps for option in named), [o for o in named if o.encode() not in helps]
