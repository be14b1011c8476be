"""A hub on loopback: the few addresses that pulling a model asks for, and the ways in which a network fails."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class FakeHub:
    """Repositories {name: {file: bytes}}. trouble: {file: how it fails}: "flipped", "truncated", "missing", "stalls" or "error"."""

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        self.repos, self.trouble = repos, {}
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
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            return self._json(request, self._info(found[1]))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            return self._json(request, self._tree(found[1]))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(request, found[1], found[2], body=body)
        return self._refuse(request, "RepoNotFound")

    def _info(self, repo: str):
        files = self.repos.get(repo)
        return files and {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}

    def _tree(self, repo: str):
        rows = []
        for name, data in (self.repos.get(repo) or {}).items():
            row = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if name.endswith(".safetensors"):
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

    def _refuse(self, request: BaseHTTPRequestHandler, code: str) -> None:
        request.send_response(404)
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
        etag = hashlib.sha256(data).hexdigest() if name.endswith(".safetensors") else git_sha1(data)
        start = 0
        asked = request.headers.get("Range")
        if asked and body:
            self.ranges.append(asked)
            start = int(re.match(r"bytes=(\d+)-", asked)[1])
        request.send_response(206 if start else 200)
        request.send_header("ETag", f'"{etag}"')
        request.send_header("X-Linked-Etag", f'"{etag}"')
        request.send_header("X-Linked-Size", str(len(data)))
        request.send_header("X-Repo-Commit", COMMIT)
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
