"""WebDataset shards: tars in which files that share a stem are one sample, on a disk or behind any URL that fsspec
reads.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from mmx.data.items import Item
from mmx.digest import cache_root
from mmx.errors import InputError, NetworkError, UsageError
from mmx.extras import require
from mmx.media import formats
from mmx.media.files import write_atomic
from mmx.media.names import is_hidden
from mmx.media.stores import shown
from mmx.models.hub import OFF, offline

T = TypeVar("T")
MOST = 100_000  # shards that one pattern may stand for
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}")
# of a modality's files in training data, the best first; as shards name them, without a dot
KINDS = ("sound", "image", "array", "text")
SUFFIXES = {kind: tuple(suffix[1:] for suffix in formats.SUFFIXES[kind]) for kind in KINDS}


@dataclass(frozen=True)
class Sample(Generic[T]):
    """The files of a tar that share a stem. members: by suffix, in lower case; meta: what its .json holds."""

    key: str
    members: dict[str, T]
    meta: dict[str, Any]

    def of(self, modality: str) -> T | None:
        """Its member of this modality."""
        return next((self.members[suffix] for suffix in SUFFIXES[modality] if suffix in self.members), None)


def _grouped(tar: tarfile.TarFile, take: Callable[[str, tarfile.TarInfo], T]) -> Iterator[Sample[T]]:
    """Samples with what is taken of their members; take: of a sample's key and a member."""
    sample = None
    for member in tar:
        if not member.isfile() or is_hidden(Path(member.name)):  # such as the ._x.jpg that tar puts on macOS
            continue
        head, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        key = f"{head}/{stem}" if head else stem
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = Sample(key, {}, {})
        if suffix.lower() == "json":
            meta = json.loads(tar.extractfile(member).read())
            if not isinstance(meta, dict):
                raise ValueError(f"{member.name} is no JSON object")
            sample.meta.update(meta)
        else:
            sample.members[suffix.lower()] = take(key, member)
    if sample is not None:
        yield sample


def hidden_members(path: str) -> list[str]:
    """The names of the hidden files of a local tar, which are left out: macOS puts a `._NAME` before each NAME. Raises
    InputError.
    """
    with _told(path), tarfile.open(path) as tar:
        return [member.name for member in tar if member.isfile() and is_hidden(Path(member.name))]


def located(path: str) -> Iterator[Sample[Item]]:
    """The samples of a local tar in order, with the places of their members. Raises InputError."""
    with _told(path), tarfile.open(path) as tar:
        yield from _grouped(tar, lambda key, member: Item(key, path, member.offset_data, member.size))


def stream(url: str) -> Iterator[Sample[bytes]]:
    """The samples of a tar, local or behind a URL, read once from its start to its end.

    Raises NetworkError, InputError.
    """
    with _told(url), _opened(url) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        yield from _grouped(tar, lambda _key, member: tar.extractfile(member).read())


def _opened(url: str) -> AbstractContextManager[IO[bytes]]:
    if "://" not in url:
        return open(url, "rb")
    import fsspec

    # over HTTP without seeking, which some servers do not know
    return fsspec.open(url, "rb", **({"block_size": 0} if url.startswith(("http://", "https://")) else {}))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Inside, whatever goes wrong with a tar is told in one line that names it."""
    try:
        yield
    except (tarfile.TarError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]  # tarfile lists what it tried
        raise InputError(f"{shown(url)}: the shard can't be read: {said.rstrip(':')}") from None
    except Exception as error:  # each file system behind fsspec has errors of its own
        if "://" in url:
            raise _failure(
                error, url, "the same command goes on with the shards that are not in the cache yet"
            ) from None
        if isinstance(error, OSError):
            raise InputError(f"{url}: the shard can't be read: {error}") from None
        raise


def find_shards(folder: Path, prefix: str) -> list[str]:
    """The shards `prefix-*.tar` of a folder, sorted. Raises InputError where there are none."""
    found = sorted(map(str, Path(folder).glob(f"{prefix}-*.tar")))
    if not found:
        raise InputError(f"{folder}: no {prefix}-*.tar shards here", hint="see README.md, 'Train your own'")
    return found


def write_shard(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """Samples, each a key and files by suffix → a tar whose bytes are a function of them. Raises OutputError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for key, files in samples:
            for suffix, data in sorted(files.items()):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    write_atomic(path, buffer.getvalue())


def identity(url: str) -> str:
    """What a shard is known by: its URL, its size and whatever tag or time of change the other side tells.

    Raises NetworkError.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
        info = fs.info(path)
    except Exception as error:  # as in `stream`
        raise _failure(error, url) from None
    known = [str(info[key]) for key in ("size", "ETag", "etag", "LastModified", "mtime", "updated") if info.get(key)]
    return " ".join([shown(url), *known])


def _failure(error: Exception, url: str, hint: str = "is the URL right?") -> NetworkError | UsageError:
    """What a file system behind fsspec says, in one line.

    Of a missing file and of a host that is not there it tells the URL alone.
    """
    if isinstance(error, ImportError):
        return UsageError(f"{shown(url)}: {error}", hint="pip install the package that it names")
    told = str(error).replace(url, "").strip(" :") or str(error.__cause__ or "").replace(url, shown(url))
    return NetworkError(f"{shown(url)}: {told or 'not found'}", hint=hint)


def urls(pattern: str) -> list[str]:
    """Paths or URLs, {000..009} and * spelled out, in order. Raises UsageError, InputError, NetworkError."""
    require("reading shards by a pattern or from a URL", "fsspec", "braceexpand")
    if "://" in pattern and not pattern.startswith("file://") and offline():
        raise NetworkError(f"{shown(pattern)}: {OFF}", hint="copy the shards to this disk")
    import fsspec
    from braceexpand import braceexpand

    try:
        # braceexpand makes a whole range at once, however large
        sizes = [abs(int(last) - int(first)) for first, last in RANGE.findall(pattern)]
        spelled = [] if any(size > MOST for size in sizes) else list(islice(braceexpand(pattern), MOST + 1))
    except ValueError:  # UnbalancedBracesError, or numbers of thousands of digits
        raise UsageError(f"{shown(pattern)}: its braces do not match", hint="such as {000..099}") from None
    if not 0 < len(spelled) <= MOST:
        raise UsageError(f"{shown(pattern)}: that is more than {MOST} shards")
    found: list[str] = []
    for url in spelled:
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
