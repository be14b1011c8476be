"""Defaults that are chosen once, how strong each source is, and help as Markdown."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from mmx.cli.commands import COMMANDS
from mmx.cli.group import load_command
from mmx.cli.settings import EXCEPT, KEYS, _toml, defaults_for


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deep" / "config.toml"
    monkeypatch.setenv("MMX_CONFIG", str(path))
    for name in KEYS:
        monkeypatch.delenv(f"MMX_{name.upper()}", raising=False)
    return path


def shown(mmx_in_process) -> dict[str, dict]:
    code, out, err = mmx_in_process("config", "show", "--json")
    assert code == 0, err.decode()
    return json.loads(out)["settings"]


def test_an_option_is_stronger_than_a_variable_and_that_than_the_file(
    mmx_in_process, file: Path, bark: Path, one_step_options, tmp_path: Path, monkeypatch
) -> None:
    def seed(*more: str) -> int:
        line = ("sound2img", bark, "-o", tmp_path / "a.png", "--overwrite", "--json", *one_step_options, *more)
        code, out, err = mmx_in_process(*line)
        assert code == 0, err.decode()
        return json.loads(out)["seed"]

    assert seed() == 0 and shown(mmx_in_process)["seed"] == {"value": None, "origin": "default"}
    assert mmx_in_process("config", "set", "seed", "5")[0] == 0
    assert seed() == 5 and shown(mmx_in_process)["seed"] == {"value": 5, "origin": str(file)}
    monkeypatch.setenv("MMX_SEED", "6")
    assert seed() == 6 and shown(mmx_in_process)["seed"] == {"value": 6, "origin": "MMX_SEED"}
    assert seed("--seed", "7") == 7
    monkeypatch.delenv("MMX_SEED")
    assert mmx_in_process("config", "set", "seed", "--unset")[0] == 0 and seed() == 0


def test_the_file_is_where_config_path_says_and_keeps_what_it_held(mmx_in_process, file: Path) -> None:
    assert mmx_in_process("config", "path") == (0, f"{file}\n".encode(), b"") and not file.exists()
    for key, value in (("server", "auto"), ("no-preview", "yes"), ("space", 'a "b" \\ ä')):
        assert mmx_in_process("config", "set", key, value, "-q") == (0, b"", b"")
    wanted = {"server": "auto", "no_preview": True, "space": 'a "b" \\ ä'}
    assert tomllib.loads(file.read_text(encoding="utf8")) == wanted
    code, out, _ = mmx_in_process("config", "show")
    assert code == 0 and all(name.encode() in out for name in KEYS) and str(file).encode() in out


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        (None, "config set nothing 1", "nothing: no such setting"),
        (None, "config set seed", "give a value"),
        (None, "config set seed 1 --unset", "give a value"),
        (None, "config set seed one", "not a whole number"),
        (None, "config set seed -1", "No such option"),
        (None, "config set offline maybe", "not true or false"),
        ("seed = ", "sound2img x.wav", "not TOML"),
        ("seed = 1.5", "sound2img x.wav", "not a whole number"),
        ("seed = true", "sound2img x.wav", "not a whole number"),
        ("[sound2img]\nseed = 1", "sound2img x.wav", "sound2img: no such setting"),
        ("\x00\xff", "config show", "not TOML"),
        ("a=" + "[" * 5000, "config show", "not TOML"),
    ],
)
def test_what_can_not_be_a_setting_is_told_by_name(
    mmx_in_process, file: Path, text: str | None, words: str, says: str
) -> None:
    if text is not None:
        file.parent.mkdir()
        file.write_bytes(text.encode("latin1"))
    code, out, err = mmx_in_process(*words.split())
    assert code == 2 and says in err.decode() and out == b"", err.decode()
    assert text is None or file.read_bytes() == text.encode("latin1")


def test_a_variable_that_makes_no_sense_is_named(mmx_in_process, file: Path, monkeypatch) -> None:
    monkeypatch.setenv("MMX_OFFLINE", "perhaps")
    code, _, err = mmx_in_process("sound2img", "x.wav")
    assert code == 2 and b"MMX_OFFLINE" in err


def test_what_trains_or_makes_again_takes_no_defaults_from_elsewhere(file: Path, monkeypatch) -> None:
    monkeypatch.setenv("MMX_SEED", "9")
    assert defaults_for("sound2img", ["seed", "num"]) == {"seed": 9}
    assert all(defaults_for(name, ["seed"]) == {} for name in EXCEPT)


def test_flags_and_groups_are_heeded_too(mmx_in_process, file: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("MMX_OFFLINE", "1")
    assert mmx_in_process("sound2img", "nope.wav")[0] == 2 and os.environ["HF_HUB_OFFLINE"] == "1"
    assert mmx_in_process("models", "verify", "starter/sound2img")[2]
    monkeypatch.setenv("MMX_QUIET", "true")
    assert mmx_in_process("models", "verify", "starter/sound2img")[0::2] == (0, b"")


def test_every_setting_is_an_option_somewhere() -> None:
    names = {option.name for name in COMMANDS for option in getattr(load_command(name), "params", ())}
    assert KEYS.keys() <= names


@pytest.mark.parametrize("text", ["", "plain", '"', "\\", "\n\t\x7f\x00", "ä→😀", "a = 1 # no"])
def test_texts_are_written_as_toml_reads_them(text: str) -> None:
    assert tomllib.loads(f"x = {_toml(text)}")["x"] == text


def test_help_as_markdown_holds_every_command_and_option(mmx_in_process) -> None:
    code, out, _ = mmx_in_process("help", "--markdown")
    text = out.decode()
    assert code == 0
    for name in COMMANDS:
        command = load_command(name)
        inner = getattr(command, "commands", None)
        for whole, one in (
            {f"{name} {own}": found for own, found in inner.items()}.items() if inner else [(name, command)]
        ):
            assert f"## mmx {whole}\n" in text
            page = text.partition(f"## mmx {whole}\n")[2].partition("\n## ")[0]
            for option in one.params:
                wanted = max(option.opts, key=len) if option.opts[0].startswith("-") else option.metavar
                assert wanted is None or f"`{wanted}`" in page, (whole, wanted)
    code, out, _ = mmx_in_process("help")
    assert code == 0 and len(out.splitlines()) >= len(COMMANDS)
    assert mmx_in_process("help", "show")[1].startswith(b"mmx show: See what")
    assert mmx_in_process("help", "nothing")[0] == 2
