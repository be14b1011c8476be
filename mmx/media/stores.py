"""Inputs and results behind URLs that fsspec knows: s3://, gs://, memory://, file:// and others.

A store is another machine: what it does not do is asked of it again, a few times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from mmx.errors import DiskError, InputError, NetworkError, UsageError
from mmx.media import files
from mmx.media.files import ADDRESS, Source, Target
from mmx.media.formats import MAX_BYTES, SUFFIXES
from mmx.media.names import is_hidden

T = TypeVar("T")
TRIES = 5  # of what a store is asked for
PAUSE = 0.2  # seconds before the second try; each later pause is twice as long
HERE = ("memory", "file", "local")  # protocols that no network is behind
# what a store says once and for all; anything else may be otherwise the next time
FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError)
FINAL += (ValueError, TypeError, NotImplementedError)


def is_store(given: str | None) -> bool:
    """Whether this names something in a store. Web pages are none: nothing is written there, and curl reads them."""
    return given is not None and ADDRESS.match(given) is not None and not given.lower().startswith(("http", "file:"))


def local(given: str) -> str:
    """A path, where that was given as a file:// URL."""
    return given[len("file://") :] if given.lower().startswith("file://") else given


def shown(url: str) -> str:
    """A URL without its query, which may hold somebody's keys."""
    return url.partition("?")[0]


@dataclass(frozen=True)
class Store:
    """A folder, or one object, in a store. url: without a slash at its end."""

    url: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and what it calls this. Raises UsageError, NetworkError."""
        import fsspec

        protocol = self.url.partition(":")[0].lower()
        if protocol not in HERE and os.environ.get("HF_HUB_OFFLINE") == "1":
            raise NetworkError(f"{shown(self.url)}: the network is off (--offline)", hint="copy the files to this disk")
        try:
            return fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise UsageError(f"{shown(self.url)}: {error}", hint="pip install the package that it names") from None
        except ValueError as error:
            raise UsageError(f"{shown(self.url)}: {error}", hint="give a folder, or a URL that fsspec knows") from None
        except Exception as error:  # each file system behind fsspec has errors of its own
            raise NetworkError(f"{shown(self.url)}: {error}") from None

    def ask(self, what: Callable[[Any, str], T], url: str) -> T:
        """What the file system answers, asked up to TRIES times. Raises NetworkError, and FINAL errors as they are."""
        fs, root = self._opened
        path = root + url.removeprefix(self.url)
        for attempt in range(TRIES):
            try:
                return what(fs, path)
            except FINAL:
                raise
            except Exception as error:
                failure = error
            if attempt < TRIES - 1:
                time.sleep(PAUSE * 2**attempt)
        raise NetworkError(f"{shown(url)}: {failure or type(failure).__name__}", hint=f"asked {TRIES} times")

    def read(self, url: str, limit: int = MAX_BYTES) -> bytes:
        """An object's bytes. Raises InputError, NetworkError."""
        try:
            if (self.ask(lambda fs, path: fs.size(path), url) or 0) > limit:
                raise InputError(f"{shown(url)}: more than 1 GiB", hint="cut it first")
            return self.ask(lambda fs, path: fs.cat_file(path), url)
        except FINAL as error:
            raise InputError(f"{shown(url)}: {_said(error)}") from None

    def write(self, url: str, data: bytes) -> None:
        """An object as a whole: object stores show it once it is complete. Raises NetworkError, and DiskError where
        nothing can be written at all."""

        def put(fs: Any, path: str) -> None:
            if path.startswith("/"):  # an object store names BUCKET/KEY: it has no folders, and would make the bucket
                fs.makedirs(fs._parent(path), exist_ok=True)
            fs.pipe_file(path, data)

        try:
            self.ask(put, url)
        except FileNotFoundError:
            raise DiskError(
                f"{shown(url)}: not written: there is no such bucket", hint="a bucket is not made"
            ) from None
        except FINAL as error:
            kind = DiskError if isinstance(error, PermissionError) else NetworkError
            raise kind(f"{shown(url)}: not written: {_said(error)}") from None

    @cached_property
    def names(self) -> frozenset[str]:
        """What there was below it when this was first asked, by its name below it, folders with a slash between.

        Raises NetworkError.
        """

        def find(fs: Any, path: str) -> frozenset[str]:
            fs.invalidate_cache()
            return frozenset(name.removeprefix(path).lstrip("/") for name in fs.find(path))

        try:
            return self.ask(find, self.url)
        except FileNotFoundError:
            return frozenset()
        except FINAL as error:
            raise NetworkError(f"{shown(self.url)}: {_said(error)}") from None


def _said(error: BaseException) -> str:
    """An error of a file system in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such object"
    return getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Stored(Source):
    """An input in a store."""

    store: Store = field(default=Store(""))
    inside: str = ""  # its name below the store

    @property
    def name(self) -> str:
        return shown(_joined(self.store.url, self.inside))

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def read(self) -> bytes:
        """The whole content. Raises InputError, NetworkError."""
        return self.store.read(_joined(self.store.url, self.inside))


@dataclass(frozen=True)
class Place(Target):
    """A result in a store."""

    store: Store = field(default=Store(""))
    inside: str = ""

    @property
    def name(self) -> str:
        return shown(_joined(self.store.url, self.inside))

    def exists(self) -> bool:
        """Whether it was there when the command began."""
        return self.inside in self.store.names

    def below(self, folder: str) -> str:
        """Its name below the store, which is the folder that was given."""
        return self.inside

    def check(self, *, overwrite: bool) -> None:
        """Fail before any work where there is something already. Raises UsageError, NetworkError."""
        if not overwrite and self.exists():
            raise UsageError(f"{self.name} exists", hint="--overwrite replaces it")

    def write(self, data: bytes) -> None:
        """Write everything or nothing. Raises NetworkError."""
        self.store.write(_joined(self.store.url, self.inside), data)


def _joined(url: str, inside: str) -> str:
    return f"{url}/{inside}" if inside else url


def expand(inputs: Iterable[str], *kinds: str) -> list[Source]:
    """As `mmx.media.files.expand`, of what lies in stores, too. Raises UsageError, NetworkError."""
    given = [local(each) for each in inputs]
    if not any(map(is_store, given)):
        return files.expand(given, *kinds)
    if given.count("-") > 1:
        raise UsageError("'-' can be given once")
    return [
        source for each in given for source in (_found(each, kinds) if is_store(each) else files.expand([each], *kinds))
    ]


def _found(url: str, kinds: Sequence[str]) -> list[Source]:
    """What a URL names: one object, those that a pattern fits, or those of some kinds below a folder."""
    store = Store(url.rstrip("/"))
    suffixes = {suffix for kind in kinds for suffix in SUFFIXES[kind]}
    if "*" in url:
        head = url[: url.index("*")].rpartition("/")[0]
        store = Store(head)
        inside = sorted(name for name in _matches(store, url.removeprefix(head)) if not is_hidden(Path(name)))
    elif "" in store.names:  # an object, and not a folder
        return [Stored(None, Path(PurePosixPath(shown(store.url)).stem), store)]
    else:
        fitting = (name for name in store.names if PurePosixPath(name).suffix.lower() in suffixes)
        inside = sorted(name for name in fitting if not is_hidden(Path(name)))
    if not inside:
        what = "no such object" if "*" in url or not store.names else f"no {' or '.join(kinds)} files below it"
        raise UsageError(f"{shown(url)}: {what}")
    # as of files: a folder's tree is kept, of a pattern the names alone
    return [Stored(None, Path(PurePosixPath(n).stem if "*" in url else n).with_suffix(""), store, n) for n in inside]


def _matches(store: Store, pattern: str) -> list[str]:
    """The objects in a store that fit a pattern, by their names below it. Raises UsageError, NetworkError."""

    def glob(fs: Any, path: str) -> list[str]:
        fs.invalidate_cache()
        return [name.removeprefix(path).lstrip("/") for name in fs.glob(path + pattern) if fs.isfile(name)]

    try:
        return store.ask(glob, store.url)
    except FINAL as error:
        raise UsageError(f"{shown(store.url)}{pattern}: {_said(error)}") from None


def place_of(output: str, suffix: str) -> Target:
    """As `mmx.media.files.output_file`, in a store, too. Raises UsageError."""
    output = local(output)
    target = files.output_file(output, suffix)
    if not is_store(output):
        return target
    parent, _, name = output.rpartition("/")
    return Place(None, Store(parent), name)


def plan(sources: list[Source], output: str | None, count: int, suffix: str) -> list[list[Target]]:
    """As `mmx.media.files.plan`, into stores, too. Raises UsageError."""
    output = output and local(output)
    if output is None or not is_store(output):
        return files.plan(sources, output, count, suffix)
    url = output.rstrip("/")
    store = Store(url.rpartition("/")[0] if files.names_a_file(output) else url)
    planned = files.plan(sources, output, count, suffix)  # a path has one slash where a URL has two
    return [[Place(None, store, target.below(store.url)) for target in own] for own in planned]
