"""The hub: models pulled once into the cache that other libraries share, pinned by commit, every file checked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from mmx.digest import sha256_of_file
from mmx.errors import ModelError, NetworkError, OutputError
from mmx.media.files import write_atomic
from mmx.models.known import ANY, KNOWN, Repo, find_known, repos_of
from mmx.models.pulling import bar_for
from mmx.progress import Told

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

OFF = "the network is off (--offline or HF_HUB_OFFLINE)"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
CONVERT = "pickles can run code and are not read; convert them: https://huggingface.co/spaces/safetensors/convert"


def offline() -> bool:
    """Whether the network is forbidden: by --offline or HF_HUB_OFFLINE."""
    return os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")


def _pins() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / "mmx-pins.json"


def pinned() -> dict[str, str]:
    """The commit that each pulled repository is pinned to."""
    path = _pins()
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else {}


def _pin(repo: str, commit: str | None) -> None:
    pins = {name: at for name, at in pinned().items() if name != repo} | ({repo: commit} if commit else {})
    write_atomic(_pins(), json.dumps(pins, indent=1, sort_keys=True).encode())


@contextmanager
def _told(name: str) -> Iterator[None]:
    """The hub library's errors as ours: one line, a hint, exit 2, 4 or 5."""
    from huggingface_hub import errors

    again = "try again: what was fetched is kept"
    try:
        yield
    except errors.GatedRepoError:  # first: it is a RepositoryNotFoundError, too
        raise ModelError(
            f"{name}: its licence must be accepted first", hint=f"on https://huggingface.co/{name}; then hf auth login"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise NetworkError(
            f"{name}: not on disk, and the hub can't be reached", hint=f"mmx models pull {name}, with a network"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise ModelError(
            f"{name}: the hub has no such model or revision", hint="check the name; hf auth login, if it is private"
        ) from None
    except (
        errors.HfHubHTTPError,
        errors.OfflineModeIsEnabled,
        errors.HTTPError,  # of its HTTP client, whichever that is in this version
        ConnectionError,
        TimeoutError,
    ) as error:
        raise NetworkError(f"{name}: the hub can't be reached: {_line(error)}", hint=again) from None
    except OSError as error:
        if str(error).startswith("Consistency check failed"):
            raise NetworkError(f"{name}: a file arrived cut short", hint=again) from None
        if error.errno is not None:
            cache = f"{again}; HF_HUB_CACHE names another folder"
            raise OutputError(f"{name}: it can't be kept in the hub's cache: {error.strerror}", hint=cache) from None
        raise NetworkError(f"{name}: {_line(error)}", hint=again) from None


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def pull(name: str, *, told: Told | None = None) -> list[Path]:
    """Fetch what is read of a model, check every file, pin the commit. Returns the snapshots. told: is told how many
    bytes are there, in the place of the library's own bars, which are never shown.

    Goes on where it was stopped. Nothing is fetched unless all repositories hold what is wanted.

    Raises ModelError, NetworkError, OutputError.
    """
    from huggingface_hub.utils import disable_progress_bars

    if told is None:
        disable_progress_bars()
    repos = [_with_those_here(repo) for repo in repos_of(name)]
    published = [_published(repo) for repo in repos]
    sizes = [_missing(repo, info) for repo, info in zip(repos, published, strict=True)]
    bars = [bar_for(told, sum(sizes[:k]), sum(sizes)) if told else None for k in range(len(sizes))]
    return [_fetch(repo, info.sha, bar) for repo, info, bar in zip(repos, published, bars, strict=True)]


def _missing(repo: Repo, info: ModelInfo) -> int:
    """Bytes of what is wanted of a repository and not in the cache."""
    from huggingface_hub import try_to_load_from_cache

    name = repo.name.partition("@")[0]
    wanted = [file for file in info.siblings or [] if any(fnmatch(file.rfilename, one) for one in repo.patterns)]
    there = (try_to_load_from_cache(name, file.rfilename, revision=info.sha) for file in wanted)
    return sum(file.size or 0 for file, at in zip(wanted, there, strict=True) if not isinstance(at, str))


def _with_those_here(repo: Repo) -> Repo:
    """What is wanted of a repository, and what models that are here read of it: its pin moves for all of them."""
    parts = [part for known in KNOWN for part in known.repos if part.name == repo.name and is_here(known.repos)]
    return Repo(repo.name, tuple(dict.fromkeys(weight for part in (repo, *parts) for weight in part.weights)))


def _published(repo: Repo) -> ModelInfo:
    """The commit to fetch, its files and their sizes. Raises ModelError where it lacks weights that are wanted or has
    them as pickles only."""
    from huggingface_hub import HfApi

    name, _, revision = repo.name.partition("@")
    if offline():
        raise NetworkError(f"{name}: {OFF}", hint="pull it once with a network")
    with _told(name):
        info = HfApi().model_info(name, revision=revision or "main", files_metadata=True)
    files = [sibling.rfilename for sibling in info.siblings or []]
    lacking = _unmatched(repo.weights, files)
    if lacking:
        own = Path(lacking)
        pickles = [Path(file) for file in files if file.endswith(PICKLES)]
        pickles.sort(key=lambda file: (file.with_suffix("") != own.with_suffix(""), file.parent != own.parent))
        raise ModelError(
            f"{name} holds no {'safetensors' if lacking in ANY else lacking}"
            f"{f', only pickles such as {pickles[0].as_posix()}' if pickles else ''}",
            hint=CONVERT if pickles else "",
        )
    return info


def _unmatched(patterns: Sequence[str], files: Sequence[str]) -> str | None:
    """The first of `patterns` that matches none of `files`."""
    return next((pattern for pattern in patterns if not any(fnmatch(file, pattern) for file in files)), None)


def _fetch(repo: Repo, commit: str, bar: type | None = None) -> Path:
    from huggingface_hub import snapshot_download

    name = repo.name.partition("@")[0]
    with _told(name):
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=repo.patterns, tqdm_class=bar))
    wrong = damaged(folder)
    if wrong:
        for path in wrong:  # so that the next pull fetches them again
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        raise ModelError(
            f"{name}: {wrong[0].name} is not the file that was published", hint="mmx models pull fetches it again"
        )
    _pin(name, commit)
    return folder


def snapshot(repo: Repo) -> Path:
    """The folder of a repository, fetched where it is not here. What is new or changed is held against its digest.

    Raises ModelError, OutputError, NetworkError that names what is missing.
    """
    name = repo.name.partition("@")[0]
    try:
        folder = _local(repo)
    except (OSError, ValueError) as error:
        if offline():
            why = "is not whole on disk" if "incomplete" in str(error) else "is not on disk"
            missing = re.search(r"missing \((.*?)\)", str(error))
            raise NetworkError(
                f"{name} {why}{f': {missing[1]} missing' if missing else ''}, and {OFF}",
                hint=f"mmx models pull {name}",
            ) from None
        wanted = _with_those_here(repo)
        return _fetch(wanted, _published(wanted).sha)
    wrong = damaged(folder, fresh=False)
    if wrong:
        raise ModelError(
            f"{name}: {wrong[0].relative_to(folder)} was changed or cut short on disk", hint=f"mmx models pull {name}"
        )
    return folder


def _local(repo: Repo) -> Path:
    """The snapshot on disk. Raises OSError where a part of what is wanted is not there."""
    from huggingface_hub import snapshot_download

    name, _, revision = repo.name.partition("@")
    at = revision or pinned().get(name, "main")
    folder = Path(snapshot_download(name, revision=at, local_files_only=True, allow_patterns=repo.patterns))
    lacking = _unmatched(repo.weights, [path.relative_to(folder).as_posix() for path in folder.rglob("*")])
    if lacking:  # where the library does not remember what was published it takes any folder for whole
        raise FileNotFoundError(f"incomplete: missing ({lacking})")
    return folder


def is_here(repos: Sequence[Repo]) -> bool:
    """Whether all that is wanted of these repositories is on disk."""
    with suppress(OSError, ValueError):
        return all(_local(repo) for repo in repos)
    return False


def damaged(folder: Path, *, fresh: bool = True) -> list[Path]:
    """The files of a snapshot whose bytes are not those of the digest that the hub names them by.

    fresh: read the weights in any case, and not only those that changed since they were last read.
    """
    return [path for path in sorted(folder.rglob("*")) if not path.is_dir() and not _is_whole(path.resolve(), fresh)]


def _is_whole(blob: Path, fresh: bool) -> bool:
    """Whether a file of the hub's cache is what its name says: a sha256 of weights, git's sha1 of small files."""
    if not blob.exists():
        return False
    if len(blob.name) == 64:
        return sha256_of_file(blob, fresh=fresh) == blob.name
    return len(blob.name) != 40 or _git_sha1(blob) == blob.name


def _git_sha1(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True)
class OnDisk:
    """A repository in the cache."""

    repo: str
    bytes: int
    folder: Path


def on_disk() -> list[OnDisk]:
    """What is in the hub's cache, ours and other tools'."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir()
    except CacheNotFound:
        return []
    return [
        OnDisk(repo.repo_id, repo.size_on_disk, Path(repo.repo_path))
        for repo in sorted(found.repos, key=lambda repo: repo.repo_id)
        if repo.repo_type == "model"
    ]


def remove(name: str) -> tuple[int, list[str]]:
    """Take a model off the disk, but for what other models that are here read, too.

    Returns the bytes that it took, and the other models' names. Raises ModelError where a part of it is not there, with
    nothing deleted.
    """
    own, here = find_known(name), {entry.repo: entry for entry in on_disk()}
    wanted = {repo.name.partition("@")[0]: repo for repo in repos_of(name)}
    absent = next((repo for repo in wanted if repo not in here), None)
    if absent:
        raise ModelError(f"{absent} is not on disk", hint="mmx models ls shows what is")
    others = [known for known in KNOWN if own and known is not own and is_here(known.repos)]
    freed, sharing = 0, []
    for repo, own_part in wanted.items():
        shared = [(known.name, part) for known in others for part in known.repos if part.name == repo]
        if shared:
            freed += _drop(here[repo].folder, own_part, [part for _, part in shared])
            sharing += [other for other, _ in shared if other not in sharing]
        else:
            shutil.rmtree(here[repo].folder)
            _pin(repo, None)
            freed += here[repo].bytes
    return freed, sharing


def _drop(folder: Path, own: Repo, others: Sequence[Repo]) -> int:
    """Delete the weights that `own` wants of a repository in the cache and none of `others`; returns their bytes."""

    def of(path: Path, *repos: Repo) -> bool:
        name = "/".join(path.relative_to(folder).parts[2:])  # below snapshots/COMMIT
        return any(fnmatch(name, pattern) for repo in repos for pattern in repo.weights)

    files = [path for path in folder.glob("snapshots/*/**/*") if not path.is_dir()]
    dropped = [path for path in files if of(path, own) and not of(path, *others)]
    kept = {path.resolve() for path in files if path not in dropped}
    blobs = {path.resolve() for path in dropped} - kept
    freed = sum(blob.stat().st_size for blob in blobs)
    for path in [*dropped, *blobs]:
        path.unlink(missing_ok=True)
    return freed
