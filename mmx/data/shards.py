"""WebDataset shards: tars in which files that share a stem are one sample, on a disk or behind any URL that fsspec reads."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mmx.digest import cache_root
from mmx.errors import InputError, NetworkError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One file, or one member of a tar: name is for people; offset and size say where its bytes are.

    Of what was streamed there is only the key of its bytes, which are in the cache.
    """

    name: str
    path: str
    offset: int = 0
    size: int = -1  # -1: to the end
    key: int = 0  # 0: not known yet

    def read(self) -> bytes:
        """Its bytes. Raises InputError, also where there are fewer than there should be."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from None
        if len(data) < self.size:
            raise InputError(f"{self.name}: {self.path} ends before it")
        return data


def _grouped(
    tar: tarfile.TarFile, take: Callable[[tarfile.TarFile, tarfile.TarInfo], T]
) -> Iterator[tuple[str, dict[str, T], dict[str, Any]]]:
    """Each sample's key, what was taken of its members by suffix, and the metadata of its .json."""
    key, members, meta = None, {}, {}
    for member in tar:
        if not member.isfile():
            continue
        head, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        own = f"{head}/{stem}" if head else stem
        if own != key:
            if key is not None:
                yield key, members, meta
            key, members, meta = own, {}, {}
        if suffix.lower() == "json":
            meta = json.loads(tar.extractfile(member).read())
            if not isinstance(meta, dict):
                raise ValueError(f"{member.name} is no JSON object")
        else:
            members[suffix.lower()] = take(tar, member)
    if key is not None:
        yield key, members, meta


def samples(path: str) -> Iterator[tuple[str, dict[str, tuple[int, int]], dict[str, Any]]]:
    """The samples of a local tar in order: key, (offset, size) by suffix, and the metadata of its .json. Raises InputError."""
    try:
        with tarfile.open(path) as tar:
            yield from _grouped(tar, lambda _tar, member: (member.offset_data, member.size))
    except (OSError, tarfile.TarError, ValueError) as error:
        raise InputError(f"{path}: the shard can't be read: {error}") from None


def stream(url: str) -> Iterator[tuple[str, dict[str, bytes], dict[str, Any]]]:
    """The samples of a tar behind a URL, read once from its start to its end and kept nowhere. Raises NetworkError, InputError."""
    import fsspec

    def contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        return tar.extractfile(member).read()

    try:
        # over HTTP without seeking, which some servers do not know
        whole = {"block_size": 0} if url.startswith(("http://", "https://")) else {}
        with fsspec.open(url, "rb", **whole) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            yield from _grouped(tar, contents)
    except (tarfile.TarError, ValueError) as error:
        raise InputError(f"{shown(url)}: the shard can't be read: {error}") from None
    except Exception as error:  # each file system behind fsspec has errors of its own
        raise _failure(error, url, "the same command goes on with the shards that are not in the cache yet") from None


def identity(url: str) -> str:
    """What a shard is known by: its URL, its size and whatever tag or time of change the other side tells. Raises NetworkError."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
        info = fs.info(path)
    except Exception as error:  # as in `stream`
        raise _failure(error, url) from None
    known = [str(info[key]) for key in ("size", "ETag", "etag", "LastModified", "mtime", "updated") if info.get(key)]
    return " ".join([shown(url), *known])


def shown(url: str) -> str:
    """A URL without its query, which may hold somebody's keys."""
    return url.partition("?")[0]


def _failure(error: Exception, url: str, hint: str = "is the URL right?") -> NetworkError | UsageError:
    """What a file system behind fsspec says, in one line. Of a missing file and of a host that is not there it tells the URL alone."""
    if isinstance(error, ImportError):
        return UsageError(f"{shown(url)}: {error}", hint="pip install the package that it names")
    told = str(error).replace(url, "").strip(" :") or str(error.__cause__ or "").replace(url, shown(url))
    return NetworkError(f"{shown(url)}: {told or 'not found'}", hint=hint)


def urls(pattern: str) -> list[str]:
    """Paths or URLs, {000..009} and * spelled out, in order. Raises InputError, NetworkError."""
    import fsspec
    from braceexpand import braceexpand

    found: list[str] = []
    for url in braceexpand(pattern):
        if "*" not in url:
            found.append(url)
            continue
        try:
            fs, path = fsspec.core.url_to_fs(url)
            inside = sorted(fs.glob(path))
        except Exception as error:  # as in `stream`
            raise _failure(error, url) from None
        found += [fs.unstrip_protocol(one) if "://" in url else one for one in inside]
    found = [url.removeprefix("file://") for url in found]
    if not found:
        raise InputError(f"{pattern}: no such shards")
    return found


def fetch(url: str) -> str:
    """A local file of a shard; a remote one is copied into the cache once. Raises NetworkError."""
    import fsspec

    if "://" not in url:
        return url
    try:
        return fsspec.open_local(f"simplecache::{url}", simplecache={"cache_storage": str(cache_root() / "shards")})
    except Exception as error:  # as in `stream`
        raise _failure(error, url) from None
