"""Names → model folders: the starter models, local folders, and hub ids. Every file is checked before use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmx.digest import sha256, sha256_of_file
from mmx.errors import ModelError, NetworkError, UsageError
from mmx.models.known import find_known, repo_of
from mmx.tasks import TASKS, starters

SUMS = "SHA256SUMS"
CALIBRATION = "calibration.json"  # beside a model, of its space: measured, and no part of it
HUB = "hf-hub:"
STARTER = "starter"


@dataclass(frozen=True)
class Located:
    """A model's folder, its companion's, and the name it is known by in provenance (never with a path)."""

    name: str
    folder: Path
    companion: Path | None = None  # what some full-size decoders need beside them

    @property
    def sha256(self) -> str:
        """One digest for the whole folder, see `digest_of`."""
        return digest_of(self.folder)

    def as_dict(self) -> dict[str, str]:
        """As provenance keeps it: the name and the digests of all folders."""
        own = {"name": self.name, "sha256": self.sha256}
        return own | ({"companion": digest_of(self.companion)} if self.companion else {})


def digest_of(folder: Path) -> str:
    """One digest for a model folder.

    That of its SHA256SUMS, which `verify` has held against the files; of a snapshot of the hub, whose files are held
    against it, too, its commit; of any other over its weights and configs.
    """
    if (folder / SUMS).exists():
        return sha256_of_file(folder / SUMS)
    return folder.name if folder.parent.name == "snapshots" else sha256(_sums(folder).encode())


def assets() -> Path:
    """The folder of shipped models and samples: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def is_shared(folder: Path) -> bool:
    """Whether a model folder is not the user's own: it came with mmx, or is the hub's, whose files are links."""
    return folder.parent.name == "snapshots" or folder.resolve().is_relative_to(assets().resolve())


def locate(name: str | None, task: str, role: str) -> Located:
    """A model's name → its folder, verified. role: such as "decoder". Raises ModelError, NetworkError.

    name: None or "starter", "starter/NAME" of one that comes with mmx, a short name that `mmx models ls` shows, a
    folder, hf-hub:ORG/REPO[@REVISION], or two of them with a + between: a decoder and its companion.
    """
    if name and name.startswith(f"{STARTER}/") and (own := assets() / name).is_dir() and not Path(name).is_dir():
        verify(own)
        return Located(name, own)
    known = None if name and Path(name).is_dir() else find_known(name)
    if known:
        from mmx.models.hub import snapshot

        return Located("+".join(repo.name for repo in known.repos), *map(snapshot, known.repos))
    if name and "+" in name and not Path(name).is_dir():
        first, _, second = name.partition("+")
        own, other = locate(first, task, role), locate(second, task, role)
        return Located(f"{own.name}+{other.name}", own.folder, other.folder)
    if name is None or name == STARTER:
        default = starters(task).get(role)
        if default is None and role == "bridge":
            raise ModelError(f"no {task} bridge comes with mmx", hint=f"mmx train-bridge {task} makes one")
        if default is None:
            raise ModelError(
                f"this bridge needs the {role} that it was trained with", hint=f"give its folder with --{role}"
            )
        folder, title = assets() / "starter" / default, f"{STARTER}/{default}"
        if not folder.is_dir():
            raise ModelError(
                f"{title}: this version of mmx ships no such starter model",
                hint=f"train one, and give it with --{role}",
            )
    elif name.startswith(HUB):
        from mmx.models.hub import snapshot

        folder, title = snapshot(repo_of(name)), name.removeprefix(HUB)
    else:
        folder = Path(name)
        title = folder.resolve().name
        if not folder.is_dir():
            raise ModelError(
                f"{name}: no such model folder", hint="give a folder, or leave the option out for the starter model"
            )
    verify(folder)
    return Located(title, folder)


def refuse_push(repo: str) -> None:
    """Find out before a training whether `push` could work after it: the name, the network, a login that may write.

    Raises UsageError, NetworkError, ModelError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    from mmx.models.hub import OFF, offline

    login = f"hf auth login, with a token that may write; or leave --push-to-hub {repo} out"
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UsageError(f"--push-to-hub {repo}: no repository can be called so", hint="NAME or ORG/NAME") from None
    if offline():
        raise NetworkError(f"--push-to-hub {repo}: {OFF}", hint="leave one of the two out")
    try:
        about = HfApi().whoami()
    except LocalTokenNotFoundError:
        raise ModelError(f"--push-to-hub {repo}: nobody is logged in at the hub", hint=login) from None
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ModelError(f"--push-to-hub {repo}: the hub does not accept the login", hint=login) from None
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise NetworkError(
            f"--push-to-hub {repo}: the hub can't be reached: {said}", hint="is there a network?"
        ) from None
    if about.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ModelError(f"--push-to-hub {repo}: the login may read only", hint=login)


def push(folder: Path, repo: str) -> None:
    """Upload a model folder to a repository of the hub, which is made where there is none. Raises NetworkError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().create_repo(repo, exist_ok=True)
        HfApi().upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=["bridge/*", "prior/*"])
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise NetworkError(
            f"{repo}: the upload failed: {str(error).splitlines()[0]}",
            hint=f"the bridge is whole in {folder}; hf auth login",
        ) from None


def missing(name: str | None) -> str | None:
    """The part of a model's name that is a folder which does not exist, or None. For errors before any work."""
    if not name or Path(name).is_dir() or find_known(name):
        return None
    if name.startswith(f"{STARTER}/") and (assets() / name).is_dir():
        return None
    known = {STARTER, *(bridge for row in TASKS.values() for bridge in row.by_words)}
    there = (part for part in name.split("+") if not (part in known or part.startswith(HUB) or find_known(part)))
    return next((part for part in there if not Path(part).is_dir()), None)


def seal(folder: Path) -> None:
    """Write SHA256SUMS over the weights and configs of a model folder, in the format of sha256sum."""
    (folder / SUMS).write_text(_sums(folder), encoding="utf8")


def _sums(folder: Path) -> str:
    lines = (f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder))
    return "".join(lines)


def verify(folder: Path, *, fresh: bool = False) -> None:
    """Raise ModelError where a file that SHA256SUMS names is missing or was changed. Unsealed folders pass.

    fresh: read large files in any case, and not only those that changed since they were last read.
    """
    sums = folder / SUMS
    if not sums.exists():
        return
    for line in sums.read_text(encoding="utf8").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{folder.name}: {name} is missing", hint="install or copy the model again")
        if sha256_of_file(path, fresh=fresh) != digest:
            raise ModelError(
                f"{folder.name}: {name} is not the file that was published (sha256 differs)",
                hint="install or copy the model again",
            )


def _files(folder: Path) -> list[Path]:
    """What a model computes with; its card may be rewritten without becoming another model."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".json", ".safetensors")
        and path.name not in ("metrics.json", CALIBRATION)
        and not any(
            part.startswith(("state-", ".")) for part in path.relative_to(folder).parts
        )  # a run's folder is a model too
    )
