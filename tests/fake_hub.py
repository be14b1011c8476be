"""A hub on loopback: the few addresses that pulling a model asks for, and the ways in which a network fails."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import ROOT

COMMIT = "c" * 40
LARGE = (".safetensors", ".onnx", ".bin")  # kept outside git: their digest is a sha256


def environment_of(address: str, folder: Path) -> dict[str, str]:
    """For commands that are to ask a hub at `address`: short time-outs, and caches in `folder`."""
    own = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    own |= {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", "HF_HOME": str(folder / "home")}
    return {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | own | {"PYTHONPATH": str(ROOT)}


def runner(environment: dict[str, str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs mmx in a process of its own: → exit code, stdout, stderr."""

    def run(*arguments: str, **more: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "mmx", *arguments]
        done = subprocess.run(command, env=environment | more, capture_output=True, text=True, check=False, timeout=120)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class FakeHub:
    """Repositories {name: {file: bytes}}.

    trouble: {file: how it fails}: "flipped", "truncated", "missing", "stalls" or "error".
    """

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        self.repos, self.trouble, self.commit = repos, {}, COMMIT
        self.gated: dict[
            str, str
        ] = {}  # repository → "files" or "everything": what is refused until its licence is accepted
        self.ranges: list[str] = []  # of requests that go on where another stopped
        self.downloads: list[str] = []
        self.stalled, self.go_on = threading.Event(), threading.Event()

    @contextmanager
    def serving(self) -> Iterator[str]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.go_on.set()
            server.shutdown()
            server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.split("?")[0]
        listed = re.match(r"/api/models/([^/]+/[^/]+)", path)
        asked = listed or re.match(r"/([^/]+/[^/]+)", path)
        if asked and asked[1] in self.gated and (not listed or self.gated[asked[1]] == "everything"):
            return self._refuse(request, "GatedRepo", 403)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            return self._json(request, self._info(found[1]))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            return self._json(request, self._tree(found[1]))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(request, found[1], found[2], body=body)
        return self._refuse(request, "RepoNotFound")

    def _info(self, repo: str):
        files = self.repos.get(repo)
        siblings = [{"rfilename": name, "size": len(data)} for name, data in (files or {}).items()]
        return files and {"id": repo, "sha": self.commit, "siblings": siblings}

    def _tree(self, repo: str):
        rows = []
        for name, data in (self.repos.get(repo) or {}).items():
            row = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if name.endswith(LARGE):
                row["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
            rows.append(row)
        return rows

    def _json(self, request: BaseHTTPRequestHandler, what) -> None:
        if not what:
            return self._refuse(request, "RepoNotFound")
        data = json.dumps(what).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
        return None

    def _refuse(self, request: BaseHTTPRequestHandler, code: str, status: int = 404) -> None:
        request.send_response(status)
        request.send_header("X-Error-Code", code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _file(self, request: BaseHTTPRequestHandler, repo: str, name: str, *, body: bool) -> None:
        data, trouble = self.repos[repo][name], self.trouble.get(name)
        if trouble == "missing":
            return self._refuse(request, "EntryNotFound")
        if trouble == "error":
            request.send_response(503)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return None
        etag = hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else git_sha1(data)
        start = 0
        asked = request.headers.get("Range")
        if asked and body:
            self.ranges.append(asked)
            start = int(re.match(r"bytes=(\d+)-", asked)[1])
        request.send_response(206 if start else 200)
        request.send_header("ETag", f'"{etag}"')
        request.send_header("X-Linked-Etag", f'"{etag}"')
        request.send_header("X-Linked-Size", str(len(data)))
        request.send_header("X-Repo-Commit", self.commit)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(data) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        if body:
            self.downloads.append(name)
            self._send(request, data[start:], trouble)
        return None

    def _send(self, request: BaseHTTPRequestHandler, data: bytes, trouble: str | None) -> None:
        half = len(data) // 2
        if trouble == "flipped":
            data = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        if trouble in ("truncated", "stalls"):
            request.wfile.write(data[:half])
            request.wfile.flush()
            if trouble == "stalls":
                self.stalled.set()
                self.go_on.wait(60)
            request.close_connection = True
            return
        request.wfile.write(data)
