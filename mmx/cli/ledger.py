"""What a big batch has done: one line an item, so that it goes on where it was stopped, whoever did what."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mmx.digest import sha256
from mmx.launch import launched
from mmx.media.files import Target
from mmx.media.stores import Store, is_store, local

if TYPE_CHECKING:
    from mmx.media.given import Job

NAME = "mmx-done.jsonl"
OFTEN = 5.0  # seconds of work that a killed run into a store may do again


class Ledger:
    """What is done of a batch, by the digest of each job. Threads may share one."""

    def __init__(self, folder: str) -> None:
        """folder: where the results go, on a disk or in a store."""
        self.folder = folder
        self.log: FileLog | StoreLog = StoreLog(folder) if is_store(folder) else FileLog(Path(local(folder)))
        self.done: dict[str, list[str]] = {}
        for line in self.log.read().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the machine went down while it was written
                continue
            self.done[row["job"]] = row["outputs"]

    def has(self, key: str, targets: Sequence[Target]) -> bool:
        """Whether this job was done, into these files, and they are still there."""
        names = [target.below(self.folder) for target in targets]
        return self.done.get(key) == names and all(target.exists() for target in targets)

    def add(self, key: str, targets: Sequence[Target]) -> None:
        """Note that a job is done, once its files are whole."""
        names = [target.below(self.folder) for target in targets]
        self.log.append(json.dumps({"job": key, "outputs": names, "process": launched().rank}) + "\n")

    def close(self) -> None:
        """Write what is noted and not written yet."""
        self.log.flush()


class FileLog:
    """OUT/mmx-done.jsonl. A line is appended in one write."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def read(self) -> str:
        """All lines that there are."""
        if not self.path.exists():
            return ""
        text = self.path.read_text(encoding="utf8")
        if text and not text.endswith("\n"):
            self.append("\n")  # or the next line would become a part of the one that was cut short
        return text

    def append(self, line: str) -> None:
        """Write a line now."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def flush(self) -> None:
        """Everything is written."""


class StoreLog:
    """OUT/mmx-done-*.jsonl: nothing is appended to an object, so every few seconds' lines are one of their own."""

    def __init__(self, url: str) -> None:
        self.store = Store(url.rstrip("/"))
        self.lines: list[str] = []
        self.since = time.monotonic()
        self.lock = threading.Lock()

    def read(self) -> str:
        """All lines that there are. Raises NetworkError, InputError."""
        stem = NAME.partition(".")[0]
        own = sorted(name for name in self.store.names if name.startswith(stem) and "/" not in name)
        return "\n".join(self.store.read(f"{self.store.url}/{name}").decode("utf8", "replace") for name in own)

    def append(self, line: str) -> None:
        """Keep a line, and write those kept once it is time. Raises NetworkError."""
        with self.lock:
            self.lines.append(line)
            if time.monotonic() - self.since > OFTEN:
                self._write()

    def flush(self) -> None:
        """Write the lines kept. Raises NetworkError."""
        with self.lock:
            self._write()

    def _write(self) -> None:
        if self.lines:
            name = NAME.replace(".", f"-{time.time_ns()}-{uuid4().hex[:8]}.")
            self.store.write(f"{self.store.url}/{name}", "".join(self.lines).encode())
        self.lines, self.since = [], time.monotonic()


def job_digest(job: Job, models: dict[str, dict[str, str]]) -> str:
    """One digest over all that a job's bytes follow from."""
    what = {
        "inputs": [given.as_dict() for given in job.inputs],
        "settings": asdict(job.settings),
        "indices": job.indices,
        "layout": job.layout,
        # a companion's digest beside that of its decoder's folder
        "models": {role: "+".join(v for k, v in own.items() if k != "name") for role, own in models.items()},
    }
    return sha256(json.dumps(what, sort_keys=True).encode())
