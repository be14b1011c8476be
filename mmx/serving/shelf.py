"""Models that stay loaded, as long as their files stay as they were."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmx.device import placed, threads
from mmx.media.given import Done, Job
from mmx.serving.wire import Asked
from mmx.tasks import task
from mmx.translate.base import Names, Translator
from mmx.translate.job import run
from mmx.translate.load import load_anew

State = tuple[tuple[str, int, int], ...]  # of files: path, size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Kept:
    """A translator, and how its models' files were when it was loaded."""

    translator: Translator
    state: State


class Shelf:
    """The translators that were used last. One thread at a time may use it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[tuple[Any, ...], Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, asked: Asked) -> Translator:
        """A translator, loaded now where it is not there or its files changed since. Raises ModelError, UsageError."""
        task(asked.command)
        kept = self._kept.pop(asked.key, None)
        if kept is None or kept.state != state_of(kept.translator):
            kept = self._load(asked)
        self._kept[asked.key] = kept
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return kept.translator

    def open(self, asked: Asked) -> dict[str, Any]:
        """What a command says of its models before it runs them."""
        translator = self.take(asked)
        where = placed(asked.placement["device"], asked.placement["dtype"])
        return {
            "place": f"{where.device} {where.name}: {where.reason}",
            "notice": translator.notice,
            "models": {role: at.as_dict() for role, at in translator.models.items()},
        }

    def run(self, asked: Asked, job: Job) -> Done:
        """A job's result. Raises whatever `mmx.translate.job.run` raises."""
        translator = self.take(asked)
        with threads(asked.threads):
            return run(translator, job)

    def loaded(self) -> list[dict[str, Any]]:
        """What is loaded, that used last first."""
        return [
            {"command": key[0], "models": {role: at.name for role, at in kept.translator.models.items()}}
            for key, kept in reversed(list(self._kept.items()))
        ]

    def _load(self, asked: Asked) -> Kept:
        where = placed(asked.placement["device"], asked.placement["dtype"])
        how = tuple((name, asked.placement[name]) for name in ("low_memory", "compile"))
        names = Names(asked.models.get("bridge"), asked.models.get("encoder"))
        translator = load_anew(asked.command, names, asked.models.get("decoder"), where, how)
        return Kept(translator, state_of(translator))


def state_of(translator: Translator) -> State:
    """How the files of a translator's models are now."""
    folders = [folder for at in translator.models.values() for folder in (at.folder, at.companion) if folder]
    return tuple(state for folder in folders for state in _states(folder))


def _states(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors"):
            about = path.stat()
            found.append((str(path), about.st_size, about.st_mtime_ns))
    return found
