"""What befalls a command from outside: a full disk, two writers, folders that may only be read, no home."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mmx.cli.settings import config_file
from mmx.digest import cache_root
from mmx.media.files import write_atomic
from tests.conftest import ROOT


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


LINES = {
    "sound2img": "{bark} -o {out}/a.png",
    "batch": "{bark} {sea} -o {out}",
    "resume": "{bark} {sea} -o {out} --resume",
    "report": "{made} -o {out}/r.html",
    "show": "{bark} -o {out}/a.png",
    "config": "set seed 1",
}


def line_of(name: str, out: Path, bark: Path, sea: Path, models: list[str]) -> list[str]:
    words = LINES[name].format(bark=bark, sea=sea, out=out, made=ROOT / "assets" / "samples").split()
    if name in ("sound2img", "batch", "resume"):
        return ["sound2img", *words, *models]
    return [name, *words]


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_more_is_told_once_and_holds_nothing_half(
    name: str, number: int, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("MMX_CONFIG", str(out / "config.toml"))
    written = 0

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("mmx.media.files.os.fsync", full)
    code, _, err = mmx_in_process(*line_of(name, out, bark, sea, one_step_options))
    assert code == 2 and os.strerror(number) in err.decode() and err.count(b"not written") == 1, err.decode()
    assert written == 1 and everything(out) in ([], ["mmx-done.jsonl"])


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("name", [name for name in LINES if name != "config"])
def test_a_folder_that_may_only_be_read(
    name: str, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path, monkeypatch
) -> None:
    """As it is for who is not root: no file can be made there."""
    out = tmp_path / "out"
    out.mkdir()
    make = os.open

    def refused(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(out)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return make(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refused)
    code, _, err = mmx_in_process(*line_of(name, out, bark, sea, one_step_options))
    assert code in (2, 6) and b"Permission denied" in err and b"bug" not in err, err.decode()
    assert everything(out) == []


def test_of_two_that_write_one_file_one_wins_whole(tmp_path: Path) -> None:
    path, texts = tmp_path / "x.png", [bytes([letter]) * 300_000 for letter in b"abcd"]
    write_atomic(path, texts[0])
    seen, going = set(), threading.Event()

    def watch() -> None:
        while not going.is_set():
            seen.add(path.read_bytes())

    def write(data: bytes) -> None:
        for _ in range(8):
            write_atomic(path, data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    writers = [threading.Thread(target=write, args=(data,)) for data in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    going.set()
    watcher.join()
    assert seen <= set(texts) and everything(tmp_path) == ["x.png"]


@pytest.mark.parametrize("line", ["config show", "help --markdown", "models ls --json"])
def test_a_reader_that_goes_away_is_no_error(line: str) -> None:
    own = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mmx", *line.split()], env=own, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.returncode in (0, -signal.SIGPIPE) and done.stderr == b"", done.stderr.decode()


def test_a_user_without_a_home_has_no_folder_that_is_called_tilde(
    mmx_in_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in containers: HOME is not set, and the user has no entry."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no entry")))
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "MMX_CACHE", "MMX_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_root().is_absolute() and config_file() == Path(os.devnull)
    assert mmx_in_process("config", "show")[0] == 0
    code, _, err = mmx_in_process("config", "set", "seed", "1")
    assert code == 2 and b"MMX_CONFIG" in err, err.decode()
    assert everything(tmp_path) == []
