"""Names as file systems and shells give them: what is an input, what a result is called, pipes and addresses."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from mmx.errors import UsageError
from mmx.media.files import Source, Target, expand, names_a_file, plan, texts, write_atomic
from mmx.media.formats import DEMUXERS, PICTURES, SUFFIXES
from tests.conftest import RATE
from tests.sounds import encoded, rising


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def planned(root: Path, kind: str = "sound", count: int = 1) -> dict[str, list[str]]:
    """The inputs of a folder and the names of their results below the output folder."""
    sources = expand([str(root)], kind)
    targets = plan(sources, "out", count, ".png")
    return {
        source.path.relative_to(root).as_posix(): [t.path.relative_to("out").as_posix() for t in group]
        for source, group in zip(sources, targets, strict=True)
    }


def test_equal_stems_keep_their_whole_names_whatever_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.mp3", "b.wav", "deep/a.wav")
    found = planned(tmp_path)
    assert found == {
        "a.mp3": ["a.mp3.png"],
        "a.wav": ["a.wav.png"],
        "b.wav": ["b.png"],
        "deep/a.wav": ["deep/a.png"],
    }
    turned = [str(tmp_path / name) for name in ("b.wav", "a.wav", "a.mp3")]
    names = [group[0].path.name for group in plan(expand(turned, "sound"), "out", 1, ".png")]
    assert names == ["b.png", "a.wav.png", "a.mp3.png"]


def test_whole_names_that_are_another_files_stem_are_told_apart_too(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "a.mp3", "a.wav.flac")
    assert planned(tmp_path) == {"a.mp3": ["a.mp3.png"], "a.wav": ["a.wav.png"], "a.wav.flac": ["a.wav.flac.png"]}


def test_one_name_of_two_folders_is_refused_as_before(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.wav", "y/a.wav")
    sources = expand([str(tmp_path / "x" / "a.wav"), str(tmp_path / "y" / "a.wav")], "sound")
    with pytest.raises(UsageError, match=r"two inputs would both be written to out/a\.wav\.png"):
        plan(sources, "out", 1, ".png")


def test_hidden_files_and_folders_are_no_inputs_unless_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "._a.wav", ".hidden/b.wav", "deep/._c.wav", "deep/c.wav", "__MACOSX/._a.wav")
    assert list(planned(tmp_path)) == ["a.wav", "deep/c.wav"]
    assert [s.path.name for s in expand([str(tmp_path / "._a.wav")], "sound")] == ["._a.wav"]
    beside = tmp_path / ".config" / "sounds"
    touch(beside, "d.wav")
    assert list(planned(beside)) == ["d.wav"]  # only what is below the folder counts


def test_linked_folders_are_walked_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/b.wav", "in/a.wav", "in/deep/c.wav")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "deep" / "loop").symlink_to(tmp_path / "in")
    assert planned(tmp_path / "in") == {
        "a.wav": ["a.png"],
        "deep/c.wav": ["deep/c.png"],
        "linked/b.wav": ["linked/b.png"],
    }


def test_names_that_are_no_utf8_go_through_a_command(mmx_in_process, debug_options, tmp_path: Path) -> None:
    folder, name = tmp_path / "in", os.fsdecode(b"\xff\xe9.wav")
    folder.mkdir()
    (folder / name).write_bytes(encoded(rising(1), RATE))
    code, out, err = mmx_in_process("sound2img", folder, "-o", tmp_path / "out", "--json", *debug_options)
    assert code == 0, (out, err)
    (made,) = (tmp_path / "out").iterdir()
    assert os.fsencode(made.name) == b"\xff\xe9.png" and json.loads(out)["outputs"] == [str(made)]
    Image.open(made).load()
    code, out, err = mmx_in_process("inspect", made)
    assert code == 0 and rb"\udcff\udce9.wav" in out, (out, err)


@pytest.mark.parametrize("stem", ["a" * 251, "é" * 125 + "a", "a" * 245])
def test_names_as_long_as_a_file_system_takes(tmp_path: Path, stem: str) -> None:
    touch(tmp_path, f"{stem}.wav", f"{stem[:-1]}b.wav")
    (one,), _ = plan(expand([str(tmp_path)], "sound"), str(tmp_path / "out"), 1, ".png")
    one.write(b"whole")
    assert one.path.name == f"{stem}.png" and os.listdir(one.path.parent) == [one.path.name]
    several = [t for group in plan(expand([str(tmp_path)], "sound"), str(tmp_path / "n"), 3, ".png") for t in group]
    for number, target in enumerate(several):
        target.write(bytes([number]))
    assert len(os.listdir(tmp_path / "n")) == 6 and all(
        t.path.read_bytes() == bytes([n]) for n, t in enumerate(several)
    )
    assert all(t.path.name.endswith(f"-{n % 3}.png") for n, t in enumerate(several))


def test_a_name_that_is_too_long_is_a_usage_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name may be as long"):
        Target(tmp_path / ("a" * 260 + ".png")).check(overwrite=False)
    with pytest.raises(UsageError, match="no such file"):
        expand(["a" * 300 + ".wav"], "sound")


def test_an_output_that_fails_does_not_end_the_batch(
    mmx_in_process, debug_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        touch(tmp_path / "in", f"{name}/{name}.wav")
        (tmp_path / "in" / name / f"{name}.wav").write_bytes(encoded(rising(1), RATE))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_text("a file where a folder should be")
    code, _, err = mmx_in_process("sound2img", tmp_path / "in", "-o", tmp_path / "out", *debug_options)
    made = sorted(path.name for path in (tmp_path / "out").rglob("*.png"))
    assert (code, made) == (6, ["a.png", "c.png"]) and b"can't write here" in err


def test_suffixes_of_outputs_in_upper_case(tmp_path: Path) -> None:
    (source,) = [Source(Path("x.wav"), Path("x"))]
    assert plan([source], "UP.PNG", 1, ".png")[0][0].path == Path("UP.PNG")
    assert [t.path.name for t in plan([source], "UP.PNG", 2, ".png")[0]] == ["UP-0.PNG", "UP-1.PNG"]


def test_results_2024_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.png").mkdir()
    sources = [Source(Path("x.wav"), Path("x")), Source(Path("y.wav"), Path("y"))]
    for folder in ("results.2024", "here.png"):
        assert [g[0].path for g in plan(sources, folder, 1, ".png")] == [Path(folder, "x.png"), Path(folder, "y.png")]


OWN = {"matroska": ".mkv", "mov": ".mov", "mpeg": ".mpg", "mpegts": ".ts", "mpc8": ".mpc"}  # where it is not the name


@pytest.mark.parametrize("kind", DEMUXERS)
def test_a_folder_is_searched_for_every_kind_of_sound_that_is_read(kind: str) -> None:
    assert OWN.get(kind, f".{kind}") in SUFFIXES["sound"]


@pytest.mark.parametrize("kind", PICTURES)
def test_a_folder_is_searched_for_every_kind_of_picture_that_is_read(kind: str) -> None:
    Image.init()
    suffixes = {suffix for suffix, own in Image.EXTENSION.items() if own == kind} or {".heic", ".heif"}
    assert suffixes - {".jp2", ".hif"} <= set(SUFFIXES["image"])


@pytest.fixture
def piped(tmp_path: Path):
    """A file as the shell's <(...) gives it: a pipe that can be read once."""
    writers = []

    def pipe(data: bytes, name: str = "63") -> Path:
        path = tmp_path / name
        os.mkfifo(path)
        writers.append(threading.Thread(target=path.write_bytes, args=(data,), daemon=True))
        writers[-1].start()
        return path

    yield pipe
    for writer in writers:
        writer.join(5)


def test_pipes_are_files_for_inputs_and_what_is_blended_in(
    mmx_in_process, debug_options, tmp_path: Path, piped, bark: Path, sea: Path
) -> None:
    mix = piped(sea.read_bytes(), "64")
    given = (piped(bark.read_bytes()), "--mix", f"{mix}:0.3", "-o", tmp_path / "piped.png", *debug_options)
    code, _, err = mmx_in_process("sound2img", *given)
    assert code == 0, err.decode()
    mmx_in_process("sound2img", bark, "--mix", f"{sea}:0.3", "-o", tmp_path / "direct.png", *debug_options)
    one, other = (Image.open(tmp_path / f"{name}.png").tobytes() for name in ("piped", "direct"))
    assert one == other
    code, out, err = mmx_in_process("inspect", piped((tmp_path / "direct.png").read_bytes(), "65"))
    assert code == 0 and b"sound2img" in out, err.decode()


def test_a_manifest_a_text_and_a_video_may_come_from_pipes(tmp_path: Path, piped, monkeypatch) -> None:
    from mmx.data.manifest import read_manifest
    from mmx.media.video import moments
    from tests.test_real_videos import video

    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(("source,target\na.wav,a.png\n", '{"source": "a.wav", "target": "a.png"}\n')):
        manifest = read_manifest(str(piped(text.encode(), f"m{number}")), "sound2img")
        assert [item.path for item in manifest.sources.items] == ["a.wav"]  # from the current folder
    (text,) = texts([str(piped(b"a dog", "t"))])
    assert text.read() == b"a dog"
    film = video(tmp_path / "film.mkv").read_bytes()
    assert len(list(moments(piped(film, "v"), every=2.0, window=1.0, sample_rate=RATE))) == 4


def test_a_space_reads_pipes_too(tmp_path: Path, piped, bark: Path) -> None:
    from mmx.spaces.parts import parts_of
    from mmx.spaces.query import parse_query
    from tests.small_space import small_space

    (direct,) = parts_of(small_space(), bark, str(bark))
    path = piped(bark.read_bytes())
    assert [term.kind for term in parse_query(str(path))] == ["file"]
    (part,) = parts_of(small_space(), path, str(path))
    assert part.modality == "sound" and (part.medium.samples == direct.medium.samples).all()


def test_a_pipe_takes_one_result(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    path, got = tmp_path / "out", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()
    code, _, err = mmx_in_process("sound2img", bark, "-o", path, *debug_options)
    reader.join(5)
    assert code == 0 and got and got[0].startswith(b"\x89PNG"), err.decode()
    assert mmx_in_process("sound2img", bark, "-o", path, "-n", "2", *debug_options)[0] == 2
    assert names_a_file("/dev/null") and not names_a_file("/dev/shm")
    Target(Path("/dev/null")).check(overwrite=False)
    Target(Path("/dev/null")).write(b"gone")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("line", "what_to_do"),
    [
        ("sound2img https://host/a.wav?key=secret", "curl -L URL | mmx ... -"),
        ("tag s3://bucket/a.wav", "curl -L URL | mmx ... -"),
        ("img2speech HTTP://host/a.png", "curl -L URL | mmx ... -"),
        ("sound2img {bark} --mix https://host/a.wav:0.5", "--mix <(curl -L URL)"),
        ("sound2img {bark} --image https://host/a.png", "--image <(curl -L URL)"),
        ("show https://host/a.wav", "curl -L URL | mmx ... -"),
        ("inspect https://host/a.png", "curl -L URL | mmx ... -"),
        ("pairs https://host/a.mp4 -o {tmp}/out", "<(curl -L URL)"),
    ],
)
def test_an_address_is_told_what_to_do(mmx_in_process, tmp_path: Path, bark: Path, line: str, what_to_do: str) -> None:
    code, _, err = mmx_in_process(*(word.format(bark=bark, tmp=tmp_path) for word in line.split()))
    assert code == 2 and b"is an address" in err and what_to_do in err.decode() and b"secret" not in err


def test_no_name_is_no_folder(mmx_in_process) -> None:
    code, _, err = mmx_in_process("sound2img", "")
    assert code == 2 and b"no such file" in err


def test_a_bug_with_the_only_input_names_it(
    mmx_in_process, debug_options, tmp_path: Path, bark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmx.translate.sound2img import SoundTranslator

    def broken(*_: object) -> list[str]:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(SoundTranslator, "notes", broken)
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *debug_options)
    assert code == 1 and b"bark.wav: this is a bug: ZeroDivisionError" in err


def test_what_is_written_beside_a_file_is_no_longer_than_names_may_be(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("a" * 249), b"x")
    assert os.listdir(tmp_path) == ["a" * 249]
