"""Where a server listens and how it is found: a Unix socket that is its owner's alone, or loopback with a token."""

from __future__ import annotations

import ipaddress
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mmx.errors import UsageError

AUTO, NONE = "auto", ("", "none")
PORT = 8750
TOKEN = "MMX_SERVER_TOKEN"


@dataclass(frozen=True)
class Address:
    """A Unix socket, or a host and port with a token. required: whether its server must answer."""

    socket: Path | None = None
    host: str = ""
    port: int = 0
    token: str = ""
    required: bool = True

    def __str__(self) -> str:
        return str(self.socket) if self.socket else f"http://{self.host}:{self.port}"


def runtime_folder(*, make: bool = False) -> Path:
    """The folder of sockets and tokens, which nobody else may read or change.

    Raises UsageError where it belongs to somebody else, or others may enter it.
    """
    import platformdirs

    with warnings.catch_warnings(), telling_who_has_no_home():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set everywhere
        folder = Path(platformdirs.user_runtime_dir("mmx"))
    if make:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}", hint="mmx serve --socket FILE says where else") from None
    for path in (folder, folder.parent):
        if path.exists():
            _require_own(path, alone=path == folder)
    return folder


@contextmanager
def telling_who_has_no_home() -> Iterator[None]:
    """Inside, platformdirs' complaint is a UsageError."""
    try:
        yield
    except RuntimeError as error:
        raise UsageError(str(error).splitlines()[0], hint="mmx serve --socket FILE; --server FILE") from None


def _require_own(path: Path, *, alone: bool) -> None:
    """Raise UsageError where a path is a link, or another user's, or with `alone` where others may enter it."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"{path} belongs to another user", hint="set XDG_RUNTIME_DIR to a folder of your own")
    if alone and stat.S_IMODE(found.st_mode) & 0o077:
        raise UsageError(f"{path}: others may enter it", hint=f"chmod 700 {path}")


def default_socket(*, make: bool = False) -> Path:
    """Where `mmx serve` listens unless it is told otherwise. Raises UsageError."""
    return runtime_folder(make=make) / "serve.sock"


def token_file(port: int, *, make: bool = False) -> Path:
    """What holds the token of the server on a port. Raises UsageError."""
    return runtime_folder(make=make) / f"token-{port}"


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_server(given: str | None) -> Address | None:
    """--server or MMX_SERVER → where the server is; None where the command computes by itself. Raises UsageError."""
    if given is None or given in NONE:
        return None
    if given == AUTO:
        socket = default_socket()
        return Address(socket, required=False) if socket.exists() else None
    if given.startswith("http://"):
        return _over_http(given)
    if "://" in given:
        raise UsageError(f"--server {given}: no such kind of address", hint="auto, a socket, or http://127.0.0.1:PORT")
    return Address(Path(given))


def _over_http(given: str) -> Address:
    try:
        parts = urlsplit(given)
        host, port = parts.hostname or "", parts.port or PORT
    except ValueError:
        raise UsageError(f"--server {given}: no such address", hint="http://127.0.0.1:PORT") from None
    if not is_loopback(host):
        raise UsageError(f"--server {given}: only this machine's own addresses", hint="tunnel it: ssh -L")
    token = os.environ.get(TOKEN, "")
    if not token and (file := token_file(port)).exists():
        token = file.read_text(encoding="utf8").strip()
    return Address(host=host, port=port, token=token)
