"""The hub: models pulled once into the cache that diffusers and transformers share, pinned by commit, every file checked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmx.digest import sha256_of_file
from mmx.errors import ModelError, NetworkError
from mmx.media.files import write_atomic

# what is fetched: weights that are read without running code, and what describes them
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.md", "LICENSE*")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class Known:
    """A full-size model that mmx knows by a short name. repos: the decoder's, then its companion's."""

    name: str
    repos: tuple[str, ...]
    task: str
    licence: str
    commercial: bool
    gigabytes: float  # of GPU memory in fp16
    resolution: int  # pixels a side, or Hz
    about: str
    steps: int | None = None  # of denoising, by default
    guidance: float | None = None


KNOWN = (
    Known(
        "kandinsky-2.2",
        ("kandinsky-community/kandinsky-2-2-decoder", "kandinsky-community/kandinsky-2-2-prior"),
        "sound2img",
        "Apache-2.0",
        True,
        6.0,
        512,
        "the full-size default: CLIP ViT-bigG image embeddings, 1280",
        50,
        4.0,
    ),
    Known(
        "stable-unclip-2.1",
        ("sd2-community/stable-diffusion-2-1-unclip",),
        "sound2img",
        "CreativeML Open RAIL++-M",
        True,
        6.0,
        768,
        "CLIP ViT-H image embeddings, 1024; a mirror, the original was withdrawn",
        20,
        10.0,
    ),
    Known(
        "sd15-ip-adapter",
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "h94/IP-Adapter"),
        "sound2img",
        "CreativeML Open RAIL-M",
        True,
        4.0,
        512,
        "CLIP ViT-H image embeddings, 1024",
        30,
        7.5,
    ),
    Known(
        "sdxl-ip-adapter",
        ("stabilityai/stable-diffusion-xl-base-1.0", "h94/IP-Adapter"),
        "sound2img",
        "CreativeML Open RAIL++-M",
        True,
        9.0,
        1024,
        "CLIP ViT-bigG image embeddings, 1280",
        30,
        5.0,
    ),
    Known(
        "sd15-face-id",
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "h94/IP-Adapter-FaceID"),
        "voice2face",
        "CreativeML Open RAIL-M; the adapter: non-commercial research",
        False,
        4.0,
        512,
        "ArcFace embeddings, 512",
        30,
        7.5,
    ),
    Known(
        "arc2face",
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "FoivosPar/Arc2Face"),
        "voice2face",
        "MIT; its face recogniser: non-commercial research",
        False,
        4.0,
        512,
        "ArcFace embeddings, 512",
        25,
        3.0,
    ),
    Known(
        "seamless-vocoder",
        ("facebook/seamless-m4t-v2-large",),
        "img2speech",
        "CC BY-NC 4.0",
        False,
        0.5,
        16_000,
        "10,000 units of XLS-R",
    ),
    Known(
        "captioner",
        ("Salesforce/blip-image-captioning-base", "facebook/mms-tts-eng"),
        "encoder",
        "BSD-3-Clause; the speaker: CC BY-NC 4.0",
        False,
        1.2,
        16_000,
        "for --bridge caption: BLIP and a VITS",
    ),
    Known(
        "speecht5-hifigan",
        ("microsoft/speecht5_hifigan",),
        "img2speech",
        "MIT",
        True,
        0.1,
        16_000,
        "log-mel vocoder: --decoder starter+speecht5-hifigan",
    ),
    Known(
        "clap", ("laion/clap-htsat-unfused",), "encoder", "Apache-2.0", True, 0.6, 48_000, "sound encoder for --encoder"
    ),
    Known(
        "ast",
        ("MIT/ast-finetuned-audioset-10-10-0.4593",),
        "encoder",
        "BSD-3-Clause",
        True,
        0.4,
        16_000,
        "sound encoder for --encoder",
    ),
    Known("wavlm", ("microsoft/wavlm-base-plus",), "encoder", "MIT", True, 0.4, 16_000, "voice encoder for --encoder"),
)


def named(name: str | None) -> str | None:
    """A short name → its hub ids; any other name as it is."""
    known = next((known for known in KNOWN if known.name == name), None)
    return "+".join(f"hf-hub:{repo}" for repo in known.repos) if known and not Path(name).is_dir() else name


def repos_of(name: str) -> tuple[str, ...]:
    """A short name, or ORG/REPO[@REVISION] with an optional hf-hub: before it → repositories. Raises ModelError."""
    known = next((known for known in KNOWN if known.name == name), None)
    if known:
        return known.repos
    parts = tuple(part.removeprefix("hf-hub:") for part in name.split("+"))
    if not all("/" in part for part in parts):
        raise ModelError(
            f"{name}: no model is called so", hint=f"give ORG/REPO, or one of {', '.join(k.name for k in KNOWN)}"
        )
    return parts


def _split(name: str) -> tuple[str, str]:
    repo, _, revision = name.partition("@")
    return repo, revision or pinned().get(repo, "main")


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
    """The hub library's errors as ours: one line, a hint, exit 4 or 5."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise NetworkError(
                f"{name}: not on disk, and the hub can't be reached", hint=f"mmx models pull {name}, with a network"
            ) from None
        raise ModelError(
            f"{name}: the hub has no such model or revision", hint="check the name; hf auth login, if it is private"
        ) from None
    except errors.GatedRepoError:
        raise ModelError(
            f"{name}: its licence must be accepted first", hint=f"on https://huggingface.co/{name}; then hf auth login"
        ) from None
    except (
        errors.HfHubHTTPError,
        errors.OfflineModeIsEnabled,
        errors.HTTPError,  # of its HTTP client, whichever that is in this version
        ConnectionError,
        TimeoutError,
    ) as error:
        raise NetworkError(
            f"{name}: the hub can't be reached: {(str(error) or type(error).__name__).splitlines()[0]}",
            hint="try again: what was fetched is kept",
        ) from None
    except OSError as error:
        if "consistency check" in str(error).lower() or "size" in str(error).lower():
            raise NetworkError(
                f"{name}: a file arrived cut short", hint="try again: what was fetched is kept"
            ) from None
        raise NetworkError(f"{name}: {str(error).splitlines()[0]}") from None


def pull(name: str, *, quiet: bool = False) -> list[Path]:
    """Fetch a model's safetensors and configs, check every file, pin the commit. Returns the snapshots. Goes on where it was stopped.

    Raises ModelError, NetworkError.
    """
    return [_pull(repo, quiet=quiet) for repo in repos_of(name)]


def _pull(name: str, *, quiet: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    repo, revision = _split(name)
    if offline():
        raise NetworkError(f"{repo}: the network is off (HF_HUB_OFFLINE)", hint="pull it once with a network")
    if quiet:
        disable_progress_bars()
    with _told(repo):
        info = HfApi().model_info(repo, revision=revision if "@" in name else "main")
        files = [sibling.rfilename for sibling in info.siblings or []]
        if not any(file.endswith(".safetensors") for file in files):
            pickles = [file for file in files if file.endswith(PICKLES)]
            raise ModelError(
                f"{repo} holds no safetensors{f', only pickles such as {pickles[0]}' if pickles else ''}",
                hint="pickles can run code and are not read; convert them: https://huggingface.co/spaces/safetensors/convert",
            )
        folder = Path(snapshot_download(repo, revision=info.sha, allow_patterns=list(WANTED)))
    wrong = damaged(folder)
    if wrong:
        for path in wrong:  # so that the next pull fetches them again
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        raise ModelError(
            f"{repo}: {wrong[0].name} is not the file that was published", hint="mmx models pull fetches it again"
        )
    _pin(repo, info.sha)
    return folder


def snapshot(name: str) -> Path:
    """The folder of ORG/REPO[@REVISION], pulled where it is not here. Every file is held against its digest when it is new or changed.

    Raises ModelError, NetworkError that names what is missing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, revision = _split(name)
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=list(WANTED)))
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        if offline():
            why = "is not whole on disk" if "incomplete" in str(error) else "is not on disk"
            missing = re.search(r"missing \((.*?)\)", str(error))
            raise NetworkError(
                f"{repo} {why}{f': {missing[1]} missing' if missing else ''}, and the network is off (HF_HUB_OFFLINE)",
                hint=f"mmx models pull {repo}",
            ) from None
        return _pull(name, quiet=True)
    wrong = damaged(folder, fresh=False)
    if wrong:
        raise ModelError(
            f"{repo}: {wrong[0].relative_to(folder)} was changed or cut short on disk", hint=f"mmx models pull {repo}"
        )
    return folder


def damaged(folder: Path, *, fresh: bool = True) -> list[Path]:
    """The files of a snapshot whose bytes are not those of the digest that the hub names them by.

    fresh: read the weights in any case, and not only those that changed since they were last read.
    """
    return [path for path in sorted(folder.rglob("*")) if not path.is_dir() and not _is_whole(path.resolve(), fresh)]


def _is_whole(blob: Path, fresh: bool) -> bool:
    """Whether a file of the hub's cache is there and is what its name says: a sha256 of weights, git's sha1 of small files."""
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
    commits: tuple[str, ...]
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
        OnDisk(repo.repo_id, repo.size_on_disk, tuple(r.commit_hash for r in repo.revisions), Path(repo.repo_path))
        for repo in sorted(found.repos, key=lambda repo: repo.repo_id)
        if repo.repo_type == "model"
    ]


def remove(name: str) -> int:
    """Take a model off the disk; returns the bytes that it took. Raises ModelError where it is not there."""
    freed = 0
    for repo in (repo.partition("@")[0] for repo in repos_of(name)):
        own = next((entry for entry in on_disk() if entry.repo == repo), None)
        if own is None:
            raise ModelError(f"{repo} is not on disk", hint="mmx models ls shows what is")
        shutil.rmtree(own.folder)
        _pin(repo, None)
        freed += own.bytes
    return freed
