"""Files in and out: what to read, where to write, and never a half-written file."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mmx.errors import DiskError, InputError, OutputError, UsageError
from mmx.media.formats import MAX_BYTES, MESHES, SUFFIXES
from mmx.media.names import NAME_BYTES, fitted, told_apart, walk

STREAMS = ("/dev", "/dev/fd", "/proc/self/fd")  # folders of what is no file, whatever it leads to
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # Path makes one slash of two; C:/ is none
MEDIA = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


@dataclass(frozen=True)
class Source:
    """One input: `path` is None for stdin; `relative` is its place below the folder that was given, without suffix."""

    path: Path | None
    relative: Path

    @property
    def name(self) -> str:
        return "stdin" if self.path is None else str(self.path)

    @property
    def suffix(self) -> str:
        return "" if self.path is None else self.path.suffix

    def read(self) -> bytes:
        """The whole content. Raises InputError."""
        try:
            with nullcontext(sys.stdin.buffer) if self.path is None else self.path.open("rb") as file:
                known = 0 if self.path is None else os.fstat(file.fileno()).st_size
                data = b"" if known > MAX_BYTES else file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from None
        if max(known, len(data)) > MAX_BYTES:
            raise InputError(f"{self.name}: more than 1 GiB", hint="cut it first")
        return data


def is_stream(path: str | Path) -> bool:
    """Whether a path is a pipe, such as the shell's <(...) and >(...), or a device: it has no name that says anything,
    can be read once, and is written as it is.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or os.path.dirname(path) in STREAMS)


def is_file(path: str | Path) -> bool:
    """Whether there is a file of this name, or a pipe. A name that is too long for one is none."""
    return os.path.exists(path) and not os.path.isdir(path)


def given_file(given: str | Path, option: str = "", *, folders: bool = False, stdin: bool = True) -> Path:
    """A file that a command line names, or with `folders` also a folder.

    option: what named it, such as "--mix "; stdin: whether an argument may be `-` in its place.

    Raises UsageError where it is not there, and for an address.
    """
    text = str(given)
    if is_file(text) or (folders and os.path.isdir(text)):
        return Path(given)
    if ADDRESS.match(text):
        hint = "curl -L URL | mmx ... -" if stdin and not option else f"mmx ... {option}<(curl -L URL)"
        raise UsageError(f"{option}{text.partition('?')[0]} is an address, and this reads files", hint=hint)
    what = "is a folder" if os.path.isdir(text) else f"no such file{' or folder' if folders else ''}"
    raise UsageError(f"{option}{text or repr(text)}: {what}")


@contextmanager
def seekable(path: Path) -> Iterator[Path]:
    """A file that can be read more than once: itself, or a copy of what comes out of a pipe. Raises InputError."""
    if not is_stream(path):
        yield path
        return
    with tempfile.NamedTemporaryFile() as copy:
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, copy)
            copy.flush()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        yield Path(copy.name)


def kind_of_file(path: Path) -> str | None:
    """What a file holds by its suffix: a key of SUFFIXES, a video and not a sound where it may be both; else None."""
    suffix = path.suffix.lower()
    return next((kind for kind in ("video", *SUFFIXES) if suffix in SUFFIXES[kind]), None)


def expand(inputs: Iterable[str], *kinds: str) -> list[Source]:
    """Files, folders (walked for files of these kinds), globs and `-` → sources. Raises UsageError where one names
    nothing."""
    sources = [source for given in inputs for source in _sources(given, kinds)]
    if sum(source.path is None for source in sources) > 1:
        raise UsageError("'-' can be given once")
    return sources


def _sources(given: str, kinds: Sequence[str]) -> list[Source]:
    path = Path(given)
    if given == "-":
        if sys.stdin.isatty():
            raise UsageError("'-' reads stdin, and stdin is a terminal", hint="pipe a file into it")
        return [Source(None, Path("stdin"))]
    if os.path.isdir(given):
        found = walk(path, {suffix for kind in kinds for suffix in SUFFIXES[kind]})
        if not found:
            raise UsageError(f"{given}: no {' or '.join(kinds)} files in this folder")
        return [Source(p, p.relative_to(path).with_suffix("")) for p in found]
    if os.path.exists(given):
        return [Source(path, Path(path.stem))]
    found = sorted(Path(p) for p in glob.glob(given, recursive=True) if os.path.isfile(p))
    return [Source(p, Path(p.stem)) for p in found or [given_file(given, folders=True)]]


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
        if text == "-" or text.lower().endswith(".txt") or is_stream(text):
            sources += expand([text], "text")
        else:
            words = re.findall(r"\w+", text.lower())[:8]
            sources.append(Text(None, Path("-".join(words)[:60] or "text"), text))
    return sources


@dataclass(frozen=True)
class Target:
    """One output: `path` is None for stdout."""

    path: Path | None

    @property
    def name(self) -> str:
        return "stdout" if self.path is None else str(self.path)

    def exists(self) -> bool:
        return self.path is not None and self.path.exists()

    def below(self, folder: str) -> str:
        """Its name below the folder that was given."""
        return Path(self.name).relative_to(folder).as_posix()

    def check(self, *, overwrite: bool) -> None:
        """Fail before any work where the output can't be written. Raises UsageError."""
        if self.path is None:
            if sys.stdout.isatty():
                raise UsageError(
                    "'-o -' writes bytes to stdout, and stdout is a terminal", hint="pipe it somewhere or give -o FILE"
                )
        elif os.path.isdir(self.path):
            raise UsageError(f"{self.path} is a folder")
        elif len(os.fsencode(self.path.name)) > NAME_BYTES:
            raise UsageError(f"{self.path.name[:40]}...: no name may be as long", hint=f"at most {NAME_BYTES} bytes")
        elif os.path.exists(self.path) and not (overwrite or is_stream(self.path)):
            raise UsageError(f"{self.path} exists", hint="--overwrite replaces it")

    def write(self, data: bytes) -> None:
        """Write everything or nothing; into a pipe or a device, what it takes."""
        if self.path is None:
            write_stdout(data)
        elif is_stream(self.path):
            _write_stream(self.path, data)
        else:
            write_atomic(self.path, data)


def output_file(output: str | Path, suffix: str, option: str = "") -> Target:
    """A single output: a file of this suffix in upper or lower case, `-`, or a pipe. Raises UsageError."""
    if str(output) != "-" and Path(output).suffix.lower() != suffix and not is_stream(output):
        raise UsageError(f"{option}{output}: this writes {suffix} files", hint=f"give a name that ends in {suffix}")
    return Target(None if str(output) == "-" else Path(output))


def names_a_file(output: str | None) -> bool:
    """Whether -o OUTPUT means one file rather than a folder.

    A path that ends with a slash or is a folder means that folder. One with the suffix of a medium means a file, as `-`
    and pipes do; any other a folder, which need not be there yet: `out.v2` as well as `out`.
    """
    if output is None or output == "-":
        return output == "-"
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return False
    return Path(output).suffix.lower() in (*MEDIA, *MESHES) or is_stream(output)


def plan(sources: list[Source], output: str | None, count: int, suffix: str) -> list[list[Target]]:
    """Where each source's `count` results go.

    `-`: stdout, for a single result, as is a pipe. None: into the current folder, by the source's name. A file: that
    one, numbered where one source has several results. A folder: it mirrors the inputs, whose names are kept whole
    where two would be the same without their suffixes.

    Raises UsageError for a file of another medium, and where two inputs have one name.
    """
    numbers = [""] if count == 1 else [f"-{k}" for k in range(count)]
    if output is not None and names_a_file(output):
        only, results = output_file(output, suffix), len(sources) * count
        if (only.path is None or is_stream(only.path)) and results != 1:
            where = "stdout" if only.path is None else output
            raise UsageError(f"{where} takes one result, this makes {results}", hint="-o FOLDER, or --grid")
        if len(sources) != 1:
            raise UsageError(f"{output} is one file, and there are {len(sources)} inputs", hint="give a folder")
        if only.path is None or count == 1:
            return [[only]]
        own = only.path
        return [[Target(own.with_name(fitted(own.stem, f"{number}{own.suffix}"))) for number in numbers]]
    return _mirrored(sources, Path(output or "."), [f"{number}{suffix}" for number in numbers])


def _mirrored(sources: list[Source], folder: Path, endings: list[str]) -> list[list[Target]]:
    names = told_apart([(source.relative, source.suffix) for source in sources])
    if len(set(names)) < len(names):
        doubled = next(name for name in names if names.count(name) > 1)
        raise UsageError(
            f"two inputs would both be written to {folder / doubled}{endings[0]}",
            hint="give their common folder instead, so that its tree is kept",
        )
    return [[Target(folder / name.parent / fitted(name.name, ending)) for ending in endings] for name in names]


def write_atomic(path: Path, data: bytes) -> None:
    """Write `path` so that it holds all of `data` or what it held before, by a hidden file beside it that is renamed.

    Raises OutputError. Ctrl-C and a full disk leave nothing behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # of the name no more than its beginning: with what mkstemp adds it must be no longer than a name may be
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    except OSError as error:
        raise _unwritten(error)(f"{path}: can't write here: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    except OSError as error:
        kind = _unwritten(error)
        raise kind(f"{path}: not written: {error.strerror}", hint="nothing half-written was left") from None
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


def _write_stream(path: Path, data: bytes) -> None:
    """All of `data` into a pipe or a device. A reader that went away is no error. Raises OutputError."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        return
    except OSError as error:
        raise _unwritten(error)(f"{path}: not written: {error.strerror}") from None


def _unwritten(error: OSError) -> type[OutputError]:
    return DiskError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else OutputError


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
