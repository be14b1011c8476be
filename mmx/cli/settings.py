"""Defaults that a user chose once: a TOML file, and MMX_* variables, which are stronger; options are stronger still."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmx.errors import UsageError

FILE = "MMX_CONFIG"  # the variable that names another file


@dataclass(frozen=True)
class Key:
    """One that may be set: the option of the same name, in every command that has it. kind: of its value."""

    kind: type
    about: str

    def read(self, value: Any, where: str) -> Any:
        """A value from a file, or as text from a variable or a command line. Raises UsageError."""
        text = isinstance(value, str)
        if self.kind is bool and text and value.lower() in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
            return value.lower() in ("1", "true", "yes", "on")
        if self.kind is int and text and value.strip().isdecimal():
            return int(value)
        if type(value) is not self.kind:
            wanted = {bool: "true or false", int: "a whole number", str: "a text"}[self.kind]
            raise UsageError(f"{where}: {value!r} is not {wanted}", hint="mmx config show lists what there is")
        return value


KEYS = {
    "device": Key(str, "Where models compute: auto, cpu, cuda, cuda:N or mps."),
    "dtype": Key(str, "In what they compute: auto, fp32, bf16 or fp16."),
    "low_memory": Key(bool, "Keep parts of full-size models off the GPU until they are needed."),
    "compile": Key(bool, "Compile decoders first."),
    "server": Key(str, "A server that has the models loaded: auto, none, a socket, or http://127.0.0.1:PORT."),
    "seed": Key(int, "The seed of translations."),
    "space": Key(str, "The joint space that embeds, tags, indexes and localizes."),
    "offline": Key(bool, "Fetch nothing."),
    "quiet": Key(bool, "Say nothing on stderr but errors."),
    "no_preview": Key(bool, "Don't show results in the terminal."),
}
# what trains, measures or makes again is what its line says it is
EXCEPT = (
    *("train-decoder", "train-bridge", "train-lm", "train-words", "eval", "calibrate", "pairs", "data"),
    *("reproduce", "config"),
)


@dataclass(frozen=True)
class Setting:
    """A value, None where nobody chose one, and who chose it."""

    value: Any = None
    origin: str = "default"


def config_file() -> Path:
    """Where the file is, or would be; of a user without a home, nowhere: os.devnull."""
    given = os.environ.get(FILE)
    if given:
        return Path(given)
    import platformdirs

    with suppress(RuntimeError):  # no home; earlier versions of the library give "~" for it
        found = Path(platformdirs.user_config_dir("mmx")) / "config.toml"
        if found.is_absolute():
            return found
    return Path(os.devnull)


def read_file() -> dict[str, Any]:
    """What the file sets. Raises UsageError where it can't be read, or sets what nobody knows."""
    path = config_file()
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    import tomllib

    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}", hint="mmx config set KEY VALUE writes it") from None
    return {name: key_of(name, str(path)).read(value, f"{path}: {name}") for name, value in found.items()}


def key_of(name: str, where: str = "") -> Key:
    """A key by its name. Raises UsageError."""
    if name not in KEYS:
        raise UsageError(f"{where + ': ' if where else ''}{name}: no such setting", hint=", ".join(KEYS))
    return KEYS[name]


def settings() -> dict[str, Setting]:
    """Every key, what it is set to, and by whom. Raises UsageError."""
    there, found = read_file(), {}
    for name, key in KEYS.items():
        variable = f"MMX_{name.upper()}"
        if variable in os.environ:
            found[name] = Setting(key.read(os.environ[variable], variable), variable)
        elif name in there:
            found[name] = Setting(there[name], str(config_file()))
        else:
            found[name] = Setting()
    return found


def defaults_for(command: str, options: Iterable[str]) -> dict[str, Any]:
    """What the user chose of a command's options. Raises UsageError."""
    if command in EXCEPT:
        return {}
    own = set(options)
    return {name: setting.value for name, setting in settings().items() if name in own and setting.origin != "default"}


def write_file(values: dict[str, Any]) -> Path:
    """Replace what the file sets. Raises OutputError, UsageError."""
    from mmx.media.files import write_atomic

    path = config_file()
    if path == Path(os.devnull):
        raise UsageError("there is no home to keep a config in", hint=f"{FILE}=FILE says where else")
    write_atomic(path, "".join(f"{name} = {_toml(value)}\n" for name, value in values.items()).encode())
    return path


def _toml(value: Any) -> str:
    """A text, whole number or truth value as TOML writes it, which JSON's strings but for DEL are."""
    import json

    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
