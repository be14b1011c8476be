"""The README's commands run, and the sample sounds are what their script makes."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf8")


def commands() -> list[str]:
    """The lines of the README's blocks marked `run`."""
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", README, re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 3


def in_a_shell(line: str, folder: Path, python: list[str]) -> None:
    """A line as it stands, in a process of its own for each command."""
    words = [
        part.replace("mmx", f"{shlex.join(python)} -m mmx", 1) if part.startswith("mmx ") else part
        for part in re.split(r"(?<=[|&]) ", line)
    ]
    script = " ".join(words)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def words_of(command: str) -> list[str]:
    """What a shell makes of a command without pipes: quotes taken away, patterns filled in."""
    found = []
    for word in shlex.split(command):
        found += sorted(glob.glob(word)) if "*.wav" in word else [word]
    return found


@pytest.mark.parametrize("line", commands())
def test_readme_command(
    line: str, mmx_in_process, python: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes in a real shell; other lines in this process, where what they import and load is there already."""
    line = line.replace("assets/samples", str(ROOT / "assets" / "samples"))
    if "|" in line:
        in_a_shell(line, tmp_path, python)
        return
    monkeypatch.chdir(tmp_path)
    for command in line.split(" && "):
        name, *arguments = words_of(command)
        code, _, err = mmx_in_process(*arguments)
        assert name == "mmx" and code == 0, err.decode()


TABLES = {
    "image": ("naming", "none_of_these", "retrieval", "one_index", "places", "said_to_be_there"),
    "sound2img": ("naming", "pictures", "text2img", "diversity"),
    "voice2face": ("faces", "separation"),
    "img2speech": ("naming", "resynthesis", "people"),
    "lm": ("images", "sounds", "ablations"),
    "face": ("edits", "l2", "judge_on_real_faces"),
    "avatar": (),  # all that there are
    "words": ("analogies",),
}


def file_of(task: str) -> Path:
    """What `mmx eval --card` wrote of a starter; of avatars, what assets/avatars.py wrote."""
    own = ROOT / "assets" / "avatars.json"
    return own if task == "avatar" else ROOT / "assets" / "starter" / task / "metrics.json"


def table_of(task: str) -> str:
    """A task's measured numbers, from its file, as the README shows them."""
    measured = json.loads(file_of(task).read_text(encoding="utf8"))["evaluation"]
    text = "\n"
    for name in TABLES[task] or [name for name, table in measured.items() if isinstance(table, dict)]:
        table = measured[name]
        columns = [column for column in next(iter(table.values())) if column != "count"]
        text += f"| {name} ({measured['split']}) | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n"
        for row, values in table.items():
            text += f"| {row} | {' | '.join(f'{values[c]:.2f}' if c in values else '' for c in columns)} |\n"
        text += "\n"
    return text


@pytest.mark.parametrize("task", [task for task in TABLES if file_of(task).exists()])
def test_the_readmes_numbers_are_the_measured_ones(task: str) -> None:
    """With MMX_WRITE_README=1 this test writes them."""
    found = re.search(rf"<!-- measured: {task} -->\n(.*?)<!-- end -->", README, re.S)
    if os.environ.get("MMX_WRITE_README") == "1":
        text = (ROOT / "README.md").read_text(encoding="utf8")
        mark, end = f"<!-- measured: {task} -->\n", "<!-- end -->"
        before, after = text.split(mark)
        text = before + mark + table_of(task) + end + after.split(end, 1)[1]
        (ROOT / "README.md").write_text(text, encoding="utf8")
    else:
        assert found.group(1) == table_of(task)


def test_samples_are_made_by_their_script(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "assets" / "samples" / "make.py", tmp_path],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    samples = ROOT / "assets" / "samples"
    for path in samples.rglob("*.wav"):
        kept, made = (soundfile.read(p, dtype="int16")[0] for p in (path, tmp_path / path.relative_to(samples)))
        # another machine's mathematics library may round the last bit otherwise
        assert len(kept) == len(made) and np.abs(kept.astype(int) - made.astype(int)).max() <= 8


def test_every_option_that_the_readme_names_exists(mmx_in_process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    named = set(re.findall(r"`(--[a-z0-9-]+)", README))
    helps = b"".join(
        mmx_in_process(command, "--help")[1]
        for command in (
            "sound2img",
            "voice2face",
            "img2speech",
            "text2img",
            "embed",
            "tag",
            "index",
            "search",
            "localize",
            "calibrate",
            "caption",
            "train-lm",
            "train-words",
            "avatar",
            "edit",
            "show",
            "train-bridge",
            "train-decoder",
            "eval",
            "reproduce",
            "serve",
            "sign",
            "report",
            "translate",
        )
    )
    assert named and all(option.encode() in helps for option in named), [o for o in named if o.encode() not in helps]
