"""Pictures in terminals: what each protocol carries is the picture; pipes, NO_COLOR and dumb terminals get none."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmx.cli.preview import preview, progress
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import png_bytes
from mmx.media.terminal import drawn, enlarged, in_terminal, protocol, sixels
from tests.conftest import RATE, ROOT, tone


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, "blocks"),
        ({"TERM": "yaft-256color-sixel"}, "sixel"),
        ({}, "blocks"),
    ],
)
def test_which_protocol_a_terminal_takes(environment: dict[str, str], wanted: str, monkeypatch) -> None:
    monkeypatch.setattr("mmx.media.terminal.DEVICE", "/nowhere")
    assert protocol(environment) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"), [(b"\x1b[?62;4;22c", "sixel"), (b"\x1b[?62;22c", "blocks"), (b"", "blocks")]
)
def test_a_terminal_is_asked_whether_it_shows_sixels(answer: bytes, wanted: str) -> None:
    script = "import os; from mmx.media.terminal import protocol; print('found', protocol({'TERM': 'xterm'}))"
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", script])
    said = b""
    while b"found" not in said or not said.endswith(b"\n"):
        said += os.read(terminal, 1000)
        if b"\x1b[c" in said:
            os.write(terminal, answer)
            said = said.replace(b"\x1b[c", b"")
    os.close(terminal)
    os.waitpid(child, 0)
    assert f"found {wanted}".encode() in said


def test_kitty_and_iterm_are_given_the_file_itself() -> None:
    data = png_bytes(noise(100, 80))
    shown = drawn(data, "kitty", 30)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", shown)
    assert base64.b64decode("".join(text for _, text in chunks)) == data and len(chunks) > 1
    assert "c=30" in chunks[0][0] and all(len(text) <= 4096 for _, text in chunks)
    assert [("m=1" in keys) for keys, _ in chunks] == [True] * (len(chunks) - 1) + [False]
    shown = drawn(data, "iterm", 30)
    assert base64.b64decode(shown.rpartition(":")[2].rstrip("\a")) == data and "width=30" in shown


def sixel_decoded(text: str) -> np.ndarray:
    """A naive reader of what `sixels` writes: (H, W, 3) in percent."""
    found = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\', text, re.S)
    width, height = int(found[1]), int(found[2])
    canvas, colours, x, top, colour = np.full((height, width, 3), -1), {}, 0, 0, 0
    for token in re.findall(r"#\d+(?:;\d+){4}|#\d+|!\d+.|[?-~]|\$|-", found[3]):
        if token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        elif token.startswith("#") and ";" in token:
            number, _, *parts = token[1:].split(";")
            colours[int(number)] = [int(part) for part in parts]
        elif token.startswith("#"):
            colour = int(token[1:])
        else:
            count, bits = (int(token[1:-1]) if token[0] == "!" else 1), ord(token[-1]) - 63
            for column in range(x, x + count):
                for k in range(6):
                    if bits >> k & 1:
                        canvas[top + k, column] = colours[colour]
            x += count
    return canvas


def test_sixels_are_the_picture() -> None:
    picture = noise(17, 14).quantize(40).convert("RGB")
    wanted = np.round(np.asarray(picture.quantize(256).convert("RGB")) / 2.55)
    assert np.abs(sixel_decoded(sixels(picture)) - wanted).max() <= 1
    plain = Image.new("RGB", (64, 12), "red")
    assert "!64" in sixels(plain) and np.abs(sixel_decoded(sixels(plain)) - [100, 0, 0]).max() <= 1


def test_half_blocks_are_the_picture() -> None:
    picture = noise(10, 12)
    lines = in_terminal(picture, 10).split("\n")
    pixels = np.asarray(picture)
    assert len(lines) == 6
    for number, line in enumerate(lines):
        upper = [[int(n) for n in cell] for cell in re.findall(r"38;2;(\d+);(\d+);(\d+)m", line)]
        lower = [[int(n) for n in cell] for cell in re.findall(r"48;2;(\d+);(\d+);(\d+)m", line)]
        assert upper == pixels[2 * number].tolist() and lower == pixels[2 * number + 1].tolist()


def test_small_pictures_are_enlarged_by_whole_factors() -> None:
    small = noise(64, 64)
    assert enlarged(small, 288).size == (256, 256) and enlarged(small, 20).size == (20, 20)
    assert (np.asarray(enlarged(small, 128))[::2, ::2] == np.asarray(small)).all()


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What a test puts in the place of stderr, which pytest would put back if it were done here."""
    stream = Terminal()
    monkeypatch.setattr("mmx.media.terminal.DEVICE", "/nowhere")
    for name in ("NO_COLOR", "TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_who_wants_no_pictures_gets_none(terminal: Terminal, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    png, wav = png_bytes(noise(8, 8)), wav_bytes(Waveform(tone(0.5), RATE))
    preview([png])
    assert terminal.getvalue().count("▀") == 36 * 18
    terminal.truncate(0)
    preview([wav])
    assert "▀" in terminal.getvalue()
    terminal.truncate(0)
    preview([b"GIF89a"])
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            preview([png])
    monkeypatch.setattr(Terminal, "isatty", lambda _: False)
    preview([png])
    assert not terminal.getvalue().strip("\0")


def test_a_command_shows_its_result_and_a_batch_how_far_it_is(
    one_step_options, bark: Path, sea: Path, tmp_path: Path, terminal: Terminal, monkeypatch
) -> None:
    from mmx.cli.app import main

    monkeypatch.setattr(sys, "stderr", terminal)

    def err(*words: object) -> str:
        terminal.seek(0)
        terminal.truncate()
        with pytest.raises(SystemExit) as left:
            main(["sound2img", *map(str, words), *one_step_options, "--overwrite"])
        assert not left.value.code, terminal.getvalue()
        return terminal.getvalue()

    assert "▀" in err(bark, "-o", tmp_path / "a.png")
    assert "▀" in err(bark, sea, "--grid", "-o", tmp_path / "a.png")
    for quiet in ("--no-preview", "--quiet", "--json"):
        assert "▀" not in err(bark, "-o", tmp_path / "a.png", quiet)
    batch = err(bark, sea, "-o", tmp_path / "all")
    assert "2/2" in batch and "left" in batch and "▀" not in batch and "heard" in batch
    assert "2/2" not in err(bark, sea, "-o", tmp_path / "all", "-q")
    monkeypatch.setenv("TERM", "dumb")
    assert "2/2" not in err(bark, sea, "-o", tmp_path / "all")


def test_progress_passes_on_what_it_is_given(terminal: Terminal, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress([1, 2, 3], 3, shown=True) as going:
        for item in going:
            print("out", item)
    assert capsys.readouterr().out == "out 1\nout 2\nout 3\n" and "3/3" in terminal.getvalue()


def test_an_index_shows_how_far_it_is(
    mmx_in_process, one_step_models, bark: Path, sea: Path, tmp_path: Path, terminal: Terminal, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    line = ("index", bark, sea, "--space", one_step_models[1], "--bridge", one_step_models[0])
    assert mmx_in_process(*line, "-o", tmp_path / "a.idx")[0] == 0
    assert "2/2" in terminal.getvalue() and "left" in terminal.getvalue()
    terminal.truncate(0)
    assert mmx_in_process(*line, "-o", tmp_path / "b.idx", "-q")[0] == 0 and "2/2" not in terminal.getvalue()
