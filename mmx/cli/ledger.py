"""What a big batch has done: one line an item, so that it goes on where it was stopped, whoever did what."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mmx.digest import sha256
from mmx.launch import launched

if TYPE_CHECKING:
    from mmx.media.given import Job

NAME = "mmx-done.jsonl"


class Ledger:
    """OUT/mmx-done.jsonl. A line is appended in one write, after an item's files are whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.done: dict[str, list[str]] = {}
        if self.path.exists():
            text = self.path.read_text(encoding="utf8")
            if text and not text.endswith("\n"):
                self._append("\n")  # or the next line would become a part of the one that was cut short
            for line in text.splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the machine went down while it was written
                    continue
                self.done[row["job"]] = row["outputs"]

    def has(self, key: str, outputs: Sequence[Path]) -> bool:
        """Whether this job was done, into these files, and they are still there."""
        names = [path.relative_to(self.path.parent).as_posix() for path in outputs]
        return self.done.get(key) == names and all(path.exists() for path in outputs)

    def add(self, key: str, outputs: Sequence[Path]) -> None:
        """Note that a job is done."""
        names = [path.relative_to(self.path.parent).as_posix() for path in outputs]
        self._append(json.dumps({"job": key, "outputs": names, "process": launched().rank}) + "\n")

    def _append(self, text: str) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


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
