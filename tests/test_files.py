"""Inputs found, outputs planned, and nothing half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mmx.errors import OutputError, UsageError
from mmx.media import files
from mmx.media.files import Source, Target, expand, names_a_file, plan, write_atomic


def test_folders_globs_and_files(tmp_path: Path) -> None:
    for name in ("a/x.wav", "a/b/y.ogg", "a/notes.txt", "z.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = expand([str(tmp_path / "a"), str(tmp_path / "*.flac")], "sound")
    assert [str(s.relative) for s in found] == ["b/y", "x", "z"]
    for missing in ("nope.wav", str(tmp_path / "*.mp3")):
        with pytest.raises(UsageError):
            expand([missing], "sound")
    with pytest.raises(UsageError, match="once"):
        expand(["-", "-"], "sound")


def test_outputs_mirror_inputs() -> None:
    sources = [Source(Path("in/b/y.ogg"), Path("b/y")), Source(Path("in/x.wav"), Path("x"))]
    assert [[str(t.path) for t in g] for g in plan(sources, "out", 1, ".png")] == [["out/b/y.png"], ["out/x.png"]]
    assert [str(t.path) for t in plan(sources[1:], "out/dog.png", 3, ".png")[0]] == [
        "out/dog-0.png",
        "out/dog-1.png",
        "out/dog-2.png",
    ]
    assert plan(sources[:1], "-", 1, ".png")[0][0].path is None
    for output, count in (("one.png", 1), ("-", 1)):
        with pytest.raises(UsageError):
            plan(sources, output, count, ".png")
    with pytest.raises(UsageError, match=r"writes \.png"):
        plan(sources[:1], "dog.jpg", 1, ".png")
    with pytest.raises(UsageError, match="two inputs"):
        plan([sources[0], sources[0]], "out", 1, ".png")


@pytest.mark.parametrize(
    ("output", "is_file"),
    [("out", False), ("out.v2", False), ("out.v2/", False), ("a.png/", False), ("here.png", False), ("a.png", True)],
)
def test_one_rule_says_what_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, is_file: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.png").mkdir()
    assert names_a_file(output) is is_file
    ((target,),) = plan([Source(Path("x.wav"), Path("x"))], output, 1, ".png")
    assert target.path == (Path(output) if is_file else Path(output) / "x.png")
    assert names_a_file("-") and not names_a_file(None)


def test_write_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "x.bin"
    write_atomic(path, b"old")
    assert path.read_bytes() == b"old" and os.stat(path).st_mode & 0o777 == 0o666 & ~files._umask()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name, failure, error in (
        ("fsync", full, OutputError),
        ("replace", full, OutputError),
        ("fsync", _interrupt, KeyboardInterrupt),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, failure)
            with pytest.raises(error):
                write_atomic(path, b"new")
        assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["x.bin"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_existing_files_are_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.touch()
    with pytest.raises(UsageError, match="exists"):
        Target(path).check(overwrite=False)
    Target(path).check(overwrite=True)
    with pytest.raises(UsageError, match="folder"):
        Target(tmp_path).check(overwrite=True)
