"""Each kind of fault in training data is a finding of its own."""

from __future__ import annotations

import copy
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmx.data.check import PROBLEMS
from mmx.data.manifest import read_manifest
from mmx.media.audio import read_audio
from mmx.media.findings import KINDS
from tests.conftest import RATE
from tests.sounds import av_encoded, encoded, packets_of, rising, with_data_size
from tests.test_pairs import png

WHOLE = encoded(rising(1), RATE)


def deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(0, 4095, 64).astype(np.uint16)[None].repeat(64, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def holed() -> bytes:
    data = bytearray(av_encoded(rising(2), RATE, "mp4", "aac", {"movflags": "faststart"}))
    packets = packets_of(bytes(data))
    at, size = packets[len(packets) // 2]
    data[at + 4 : at + size - 4] = bytes(np.random.default_rng(1).integers(0, 256, size - 8, dtype=np.uint8))
    return bytes(data)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, format="JPEG")
    return buffer.getvalue()


PLANTED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "cut": ("audios/x1.wav", lambda: WHOLE[: int(0.8 * len(WHOLE))]),
    "damaged": ("audios/x2.m4a", holed),
    "opposed": ("audios/x3.wav", lambda: encoded(np.concatenate([rising(1), -rising(1)], 1), RATE)),
    "narrow": ("audios/x4.wav", lambda: encoded(rising(1, 8_000), 8_000)),
    "lying": ("audios/x5.wav", lambda: with_data_size(WHOLE, 0x7FFFF000)),
    "silent": ("audios/x6.wav", lambda: encoded(np.zeros((8_000, 1), np.float32), RATE)),
    "unreadable": ("audios/x7.wav", lambda: b"noise"),
    "short": ("audios/x8.wav", lambda: encoded(rising(0.2), RATE)),
    "broken": ("images/x1.jpg", lambda: jpeg()[:-900]),
    "range": ("images/x2.png", deep),
    "hidden": ("audios/._x0.wav", lambda: b"\0\5\x16\7"),
    "ambiguous": ("audios/x0.mp3", lambda: encoded(rising(1), RATE, "MP3")),
    "mismatched": ("images/alone.png", lambda: png(3)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(80):
        for name, data in (("audios/x{}.wav", None), ("images/x{}.png", png(3 * number))):
            path = tmp_path / "pairs" / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data or encoded(rising(1 + number / 100), RATE))
    return tmp_path / "pairs"


def checked(mmx_in_process, data: Path, *options: str) -> dict[str, list[str]]:
    code, out, err = mmx_in_process("data", "check", data, "--json", *options)
    assert code == 0, (out, err)
    return {problem: found for problem, found in json.loads(out)["problems"].items() if found}


def test_each_kind_has_its_own_name_count_and_files(mmx_in_process, folder: Path) -> None:
    assert checked(mmx_in_process, folder) == {}
    for name, make in PLANTED.values():
        path = folder / name
        if not path.name.startswith("._") and path.stem not in ("x0", "alone"):
            for before in path.parent.glob(f"{path.stem}.*"):
                before.unlink()
        path.write_bytes(make())
    found = checked(mmx_in_process, folder)
    assert {problem: len(names) for problem, names in found.items()} == dict.fromkeys(PLANTED, 1)
    assert all(Path(PLANTED[problem][0]).name in names[0] for problem, names in found.items())
    code, out, _ = mmx_in_process("data", "check", folder)
    assert code == 0 and all(problem in out.decode() for problem in PLANTED)


@pytest.mark.parametrize("size", [0, 0x80000000, 0xFFFFFFDB, 32_000 + 36])
def test_every_length_that_a_header_makes_up_is_found(mmx_in_process, folder: Path, size: int) -> None:
    (folder / "audios" / "x5.wav").write_bytes(with_data_size(WHOLE, size))
    assert list(checked(mmx_in_process, folder)) == ["lying"]


def test_hidden_files_in_shards_are_left_out_and_found(mmx_in_process, tmp_path: Path) -> None:
    """As macOS's tar writes them: before each file one that holds what its file system knows of it."""
    with tarfile.open(tmp_path / "a-000.tar", "w") as tar:
        for number in range(3):
            files = {"wav": encoded(rising(1 + number / 10), RATE), "png": png(9 * number), "json": b'{"split": "val"}'}
            for name, data in ((f"{p}s{number}.{s}", d) for s, d in files.items() for p in ("._", "")):
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (tmp_path / "._a-000.tar").write_bytes(b"\0\5\x16\7")
    manifest = read_manifest(str(tmp_path), "sound2img")
    assert [item.name for item in manifest.sources.items] == ["./s0", "./s1", "./s2"]
    assert list(manifest.sources.splits) == [1, 1, 1]
    found = checked(mmx_in_process, tmp_path)
    assert list(found) == ["hidden"] and len(found["hidden"]) == 9 and "._s0.wav" in found["hidden"][0]


def test_what_is_odd_about_a_manifest_is_found(mmx_in_process, folder: Path) -> None:
    rows = [f"audios\\x{k}.wav;images\\x{k}.png;{split}" for k, split in enumerate(("Train", "trian", "val"))]
    (folder / "p.csv").write_text("\n".join(["Source;Target;Split", *rows, ";;"]))
    code, out, _ = mmx_in_process("data", "check", folder / "p.csv", "--json")
    result = json.loads(out)
    assert code == 0 and result["counts"]["sources, trian"] == 1
    odd = "\n".join(result["problems"]["odd"])
    for what in ("separated by ';'", "'Source' is taken as source", r"written with \ for /", "rows are empty"):
        assert what in odd
    assert "the split 'Train' is taken as train" in odd and "'trian' is neither train nor val" in odd


def test_names_that_are_no_utf8_are_shown(mmx_in_process, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    name = os.fsdecode(b"\xff.wav")
    (folder / "audios" / name).write_bytes(b"noise")
    (folder / "images" / os.fsdecode(b"\xff.png")).write_bytes(png(2))
    code, out, _ = mmx_in_process("data", "check", folder)
    assert code == 0 and rb"udcff" in out


def test_notes_say_their_kind_and_copies_do_too() -> None:
    (note,) = read_audio(WHOLE[: len(WHOLE) // 2], sample_rate=RATE).notes
    assert note.kind == copy.deepcopy(note).kind == "cut" and set(KINDS) < set(PROBLEMS)


@pytest.mark.parametrize("command", ["sound2img", "voice2face"])
def test_strict_refuses_what_is_not_whole(
    mmx_in_process, debug_options, face_options, low: Path, tmp_path: Path, command: str
) -> None:
    options = {"sound2img": debug_options, "voice2face": face_options}[command]
    whole = low.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.wav").write_bytes(whole[: int(0.7 * len(whole))])
    code, _, err = mmx_in_process(command, tmp_path / "in" / "cut.wav", "-o", tmp_path / "a.png", *options)
    assert code == 0 and b"cut.wav: cut short" in err
    strict = ("--strict", "-o", tmp_path / "b.png", *options)
    code, _, err = mmx_in_process(command, tmp_path / "in" / "cut.wav", *strict)
    assert code == 3 and b"cut.wav: cut short" in err and not (tmp_path / "b.png").exists()
    # nothing of what is asked for is missing
    assert mmx_in_process(command, tmp_path / "in" / "cut.wav", "--duration", "2", *strict)[0] == 0
    (tmp_path / "in" / "whole.wav").write_bytes(whole)
    code, _, _ = mmx_in_process(command, tmp_path / "in", "--strict", "-o", tmp_path / "out", *options)
    assert code == 6 and [path.name for path in (tmp_path / "out").iterdir()] == ["whole.png"]


def test_strict_is_of_what_is_blended_in_too(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(WHOLE[: len(WHOLE) // 2])
    given = (bark, "--mix", tmp_path / "cut.wav", "-o", tmp_path / "a.png", *debug_options)
    code, _, err = mmx_in_process("sound2img", *given, "--strict")
    assert code == 3 and b"cut.wav: cut short" in err
    assert mmx_in_process("sound2img", *given)[0] == 0


def test_show_says_what_is_missing(mmx_in_process, tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(WHOLE[: len(WHOLE) // 2])
    code, _, err = mmx_in_process("show", tmp_path / "cut.wav", "-o", tmp_path / "a.png")
    assert code == 0 and b"cut.wav: cut short" in err
