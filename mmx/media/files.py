"""Files in and out: what to read, where to write, and never a half-written file."""

from __future__ import annotations

import glob
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmx.errors import InputError, OutputError, UsageError
from mmx.media.formats import MAX_BYTES, SUFFIXES

MEDIA = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


@dataclass(frozen=True)
class Source:
    """One input: `path` is None for stdin; `relative` is its place below the folder that was given, without suffix."""

    path: Path | None
    relative: Path

    @property
    def name(self) -> str:
        return "stdin" if self.path is None else str(self.path)

    def read(self) -> bytes:
        """The whole content. Raises InputError."""
        if self.path is None:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise InputError("stdin: more than 1 GiB", hint="give a file")
            return data
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise InputError(f"{self.path}: more than 1 GiB", hint="cut it first")
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}") from None


def kind_of_file(path: Path) -> str | None:
    """What a file holds by its suffix: a key of SUFFIXES, a video and not a sound where it may be both; else None."""
    suffix = path.suffix.lower()
    return next((kind for kind in ("video", *SUFFIXES) if suffix in SUFFIXES[kind]), None)


def expand(inputs: Iterable[str], *kinds: str) -> list[Source]:
    """Files, folders (walked for files of these kinds), globs and `-` → sources. Raises UsageError where one names
    nothing."""
    sources: list[Source] = []
    suffixes = {suffix for kind in kinds for suffix in SUFFIXES[kind]}
    for given in inputs:
        if given == "-":
            if sys.stdin.isatty():
                raise UsageError("'-' reads stdin, and stdin is a terminal", hint="pipe a file into it")
            sources.append(Source(None, Path("stdin")))
            continue
        path = Path(given)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
            if not found:
                raise UsageError(f"{given}: no {' or '.join(kinds)} files in this folder")
            sources += [Source(p, p.relative_to(path).with_suffix("")) for p in found]
        elif path.exists():
            sources.append(Source(path, Path(path.stem)))
        else:
            found = sorted(Path(p) for p in glob.glob(given, recursive=True) if os.path.isfile(p))
            if not found:
                raise UsageError(f"{given}: no such file or folder")
            sources += [Source(p, Path(p.stem)) for p in found]
    if sum(source.path is None for source in sources) > 1:
        raise UsageError("'-' can be given once")
    return sources


@dataclass(frozen=True)
class Text(Source):
    """A text that was given on the command line. It is known by itself, its result by its first words."""

    text: str = ""

    @property
    def name(self) -> str:
        return self.text

    def read(self) -> bytes:
        return self.text.encode()


def texts(given: Iterable[str]) -> list[Source]:
    """Texts, .txt files and `-` → sources. Raises UsageError for a .txt file that is not there."""
    sources: list[Source] = []
    for text in given:
        if text == "-" or text.lower().endswith(".txt"):
            sources += expand([text], "text")
        else:
            words = re.findall(r"\w+", text.lower())[:8]
            sources.append(Text(None, Path("-".join(words)[:60] or "text"), text))
    return sources


@dataclass(frozen=True)
class Target:
    """One output: `path` is None for stdout."""

    path: Path | None

    def check(self, *, overwrite: bool) -> None:
        """Fail before any work where the output can't be written. Raises UsageError."""
        if self.path is None:
            if sys.stdout.isatty():
                raise UsageError(
                    "'-o -' writes bytes to stdout, and stdout is a terminal", hint="pipe it somewhere or give -o FILE"
                )
        elif self.path.is_dir():
            raise UsageError(f"{self.path} is a folder")
        elif self.path.exists() and not overwrite:
            raise UsageError(f"{self.path} exists", hint="--overwrite replaces it")

    def write(self, data: bytes) -> None:
        """Write everything or nothing."""
        if self.path is None:
            write_stdout(data)
        else:
            write_atomic(self.path, data)


def names_a_file(output: str | None) -> bool:
    """Whether -o OUTPUT means one file rather than a folder.

    A path that ends with a slash or is a folder means that folder. One with the suffix of a medium means a file, as `-`
    does; any other a folder, which need not be there yet: `out.v2` as well as `out`.
    """
    if output is None or output == "-":
        return output == "-"
    return not output.endswith(("/", os.sep)) and Path(output).suffix.lower() in MEDIA and not Path(output).is_dir()


def plan(sources: list[Source], output: str | None, count: int, suffix: str) -> list[list[Target]]:
    """Where each source's `count` results go.

    `-`: stdout, for a single result. None: into the current folder, by the source's name. A file: that one, numbered
    where one source has several results. A folder: it mirrors the inputs.

    Raises UsageError for a file of another medium.
    """
    numbers = [""] if count == 1 else [f"-{k}" for k in range(count)]
    if output == "-":
        if len(sources) * count != 1:
            raise UsageError(f"stdout takes one result, this makes {len(sources) * count}", hint="-o FOLDER, or --grid")
        return [[Target(None)]]
    if output is not None and names_a_file(output):
        path = Path(output)
        if path.suffix.lower() != suffix:
            raise UsageError(f"{output}: this writes {suffix} files", hint=f"give a name that ends in {suffix}")
        if len(sources) != 1:
            raise UsageError(f"{output} is one file, and there are {len(sources)} inputs", hint="give a folder")
        return [[Target(path.with_name(f"{path.stem}{number}{suffix}")) for number in numbers]]
    folder = Path(output or ".")
    targets = [
        [Target(folder / source.relative.parent / f"{source.relative.name}{number}{suffix}") for number in numbers]
        for source in sources
    ]
    flat = [target.path for group in targets for target in group]
    doubled = next((path for path in flat if flat.count(path) > 1), None) if len(set(flat)) < len(flat) else None
    if doubled is not None:
        raise UsageError(
            f"two inputs would both be written to {doubled}",
            hint="give their common folder instead, so that its tree is kept",
        )
    return targets


def write_atomic(path: Path, data: bytes) -> None:
    """Write `path` so that it holds all of `data` or what it held before, by a hidden file beside it that is renamed.

    Raises OutputError. Ctrl-C and a full disk leave nothing behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(f"{path}: can't write here: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    except OSError as error:
        raise OutputError(f"{path}: not written: {error.strerror}", hint="nothing half-written was left") from None
    finally:
        if os.path.exists(scratch):
            os.unlink(scratch)


def write_stdout(data: bytes) -> None:
    """All of `data` to stdout. A reader that went away is no error."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # the interpreter would flush once more at exit and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
