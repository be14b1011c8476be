"""What `mmx --help` costs beside a typer app that does nothing, in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
BARE = """
import typer

app = typer.Typer()


@app.command()
def greet(name: str) -> None:
    \"\"\"Greet somebody.\"\"\"


@app.command()
def leave(name: str, politely: bool = False) -> None:
    \"\"\"Leave.\"\"\"


app()
"""


def processor_seconds(*command: str) -> float:
    """User and system time of a process, which other processes on the machine disturb less than its wall time."""
    before = os.times()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=ENVIRONMENT)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_beside_a_bare_typer_app(benchmark, tmp_path: Path) -> None:
    """All commands, and nothing heavy imported: at most 1.3 times the processor time of an app of two commands."""
    bare = tmp_path / "bare.py"
    bare.write_text(BARE)
    pairs = [(processor_seconds(str(bare), "--help"), processor_seconds("-m", "mmx", "--help")) for _ in range(9)]
    theirs, mine = (min(pair[k] for pair in pairs) for k in (0, 1))
    benchmark.extra_info |= {"help": mine, "bare": theirs, "ratio": mine / theirs}
    benchmark.pedantic(lambda: processor_seconds("-m", "mmx", "--help"), rounds=1)
    assert mine <= 1.3 * theirs
