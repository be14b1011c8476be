"""Lines that are read without typer: what they ask for is what typer makes of them, and the rest is left to it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmx.cli.commands import COMMANDS
from mmx.cli.group import load_command
from mmx.cli.plain import read_plain
from mmx.errors import UsageError
from mmx.tasks import find
from tests.conftest import ROOT


def by_typer(line: list[str]) -> dict[str, Any] | None:
    """The values that typer finds in a line; None where it complains, or would print help."""
    command = load_command(line[0])
    try:
        context = command.make_context(line[0], line[1:])
    except BaseException:
        return None
    return {name: _listed(value) for name, value in context.params.items()}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


PLAIN = [
    "sound2img a.wav b.wav -o out -n 3 --grid -q",
    "sound2img - -o - --seed=7 --gain -3.5 --mix b.wav:0.3 --mix c.wav --json",
    "sound2img --no-preview a.wav --device cpu --strict --overwrite --steps 4",
    "voice2face a.wav --average -o f.png",
    "img2speech a.png --speed 2 --voice slt",
    "text2img 'a red dog' cats --guidance 3",
    "edit a.png 'an old woman' --strip",
    "localize a.png 'a dog' -o heat.png --mask m.png",
    "show words dog cat --near 3",
    "embed --text dog -o v.safetensors",
    "tag a.wav --labels a,b --top 2",
    "caption a.wav --fast -n 2 --seed 3",
    "search my.idx dog --top 4",
    "translate a.wav --bridge b -o x.png",
]


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_line_asks_for_what_typer_makes_of_it(text: str) -> None:
    line = shlex.split(text)
    command = read_plain(line)
    assert command is not None and command.keywords == by_typer(line)


LEFT = [
    *("", "nope", "--help", "sound2img", "sound2img --help", "sound2img a.wav --nope", "sound2img a.wav -qn3", "help"),
    *("sound2img a.wav -n 0", "sound2img a.wav -n x", "sound2img a.wav -n", "sound2img a.wav -- -b.wav", "models ls"),
    *("localize a.png dog more", "sound2img a.wav --quiet=1", "sound2img a.wav --seed 1e3", "train-lm -o x"),
]


@pytest.mark.parametrize("text", LEFT)
def test_other_lines_are_left_to_typer(text: str) -> None:
    assert read_plain(shlex.split(text)) is None


def spellings(name: str) -> list[str]:
    groups = find(COMMANDS[name].where).groups
    options = {f"--{field.replace('_', '-')}" for group in groups.values() for field in group.__dataclass_fields__}
    return sorted({*options, "-o", "-n", "-q", "-x", "--", "-", "-nq", "--help"})


WORDS = st.sampled_from(["a.wav", "3", "-3", "0.5", "-0.5", "1e2", "", "x y", "-a", "--seed=4", "--seed=", "９", "nan"])


@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_whatever_is_read_here_typer_reads_alike(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["sound2img", "img2speech", "localize", "caption", "show", "embed", "index"]))
    line = [name, *data.draw(st.lists(WORDS | st.sampled_from(spellings(name)), max_size=6))]
    command = read_plain(line)
    assert command is None or command.keywords == by_typer(line)


def test_the_environment_and_the_config_count_as_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = ["sound2img", "a.wav"]
    monkeypatch.setenv("MMX_CONFIG", str(tmp_path / "c.toml"))
    (tmp_path / "c.toml").write_text('server = "none"\nseed = 5\n')
    assert {k: read_plain(line).keywords[k] for k in ("server", "seed")} == {"server": "none", "seed": 5}
    monkeypatch.setenv("MMX_SERVER", "auto")
    assert read_plain(line).keywords["server"] == "auto"
    assert read_plain([*line, "--server", "here"]).keywords["server"] == "here"
    (tmp_path / "c.toml").write_text("nope = 5\n")
    with pytest.raises(UsageError, match="nope"):
        read_plain(line)
    monkeypatch.setenv("_MMX_COMPLETE", "complete_bash")
    assert read_plain(line) is None


def test_typer_is_not_imported_for_a_plain_line() -> None:
    script = "import sys\nfrom mmx.cli.app import main\ntry:\n main(['show', 'nope'])\nfinally:\n print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2 and "mmx: nope: no such file" in done.stderr
    assert not {"typer", "pydantic", "rich", "numpy"} & {name.split(".")[0] for name in done.stdout.split()}
