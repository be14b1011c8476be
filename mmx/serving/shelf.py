"""Models that stay loaded, as long as their files stay as they were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmx.device import pick_device, placed, threads
from mmx.errors import InputError, MmxError
from mmx.faults import unexpected
from mmx.guided.avatar_given import Dressed, Order, Watcher
from mmx.media.given import Done, Job, Watch
from mmx.serving.wire import Asked
from mmx.spaces.question import CONSULTING, Answer, Question
from mmx.tasks import task

State = tuple[tuple[str, int, int], ...]  # of files: path, size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Kept:
    """What was loaded, what it is called by role, the files and folders that it was made of, and how they were then."""

    loaded: Any
    names: dict[str, str]
    files: tuple[Path, ...]
    state: State

    @classmethod
    def of(cls, loaded: Any, names: dict[str, str], files: Iterable[Path]) -> Kept:
        files = tuple(files)
        return cls(loaded, names, files, state_of(files))


class Shelf:
    """The models that were used last. One thread at a time may use it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[tuple[Any, ...], Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, asked: Asked) -> Any:
        """A translator, or what questions are put to, loaded now where it is not there or its files changed since.
        Raises ModelError, UsageError."""
        if asked.command in CONSULTING:
            return self._consulted(asked)
        task(asked.command)
        return self._taken(asked.key, lambda: _translator(asked))

    def open(self, asked: Asked) -> dict[str, Any]:
        """What a command says of its models before it runs them."""
        found = self.take(asked)
        if asked.command in CONSULTING:
            place = pick_device(asked.placement["device"])
            return {"place": place, "notice": "", "models": found.models, "facts": asdict(found.facts)}
        where = placed(asked.placement["device"], asked.placement["dtype"])
        return {
            "place": f"{where.device} {where.name}: {where.reason}",
            "notice": found.notice,
            "models": {role: at.as_dict() for role, at in found.models.items()},
        }

    def run(self, asked: Asked, work: Job | Question, watch: Watch | None = None) -> Done | Answer:
        """A job's result, or a question's answer. watch: is told of a job's steps. Raises whatever
        `mmx.translate.job.run` raises; what is wrong with a question is in its answer."""
        if isinstance(work, Question):
            return self._answer(asked, work)
        translator = self.take(asked)
        from mmx.translate.job import run

        translator.watch = watch
        try:
            with threads(asked.threads):
                return run(translator, work)
        finally:
            translator.watch = None

    def dress(self, asked: Asked, order: Order, watcher: Watcher) -> Dressed:
        """As `mmx.guided.avatar_job.dress`, with all that is wanted made by then."""
        consulted = self.take(asked)
        from mmx.guided.avatar_job import dress

        with threads(asked.threads):
            made = dress(consulted.space, order, watcher)
            return replace(made, artifacts=list(made.artifacts))

    def loaded(self) -> list[dict[str, Any]]:
        """What is loaded, that used last first."""
        return [{"command": key[0], "models": kept.names} for key, kept in reversed(list(self._kept.items()))]

    def _answer(self, asked: Asked, question: Question) -> Answer:
        if asked.command not in CONSULTING or (question.kind in ("point", "caption") and asked.command != "caption"):
            raise InputError("the request does not say which models it is for")
        consulted, found = self.take(asked), Answer()
        with threads(asked.threads):
            try:
                for answer in consulted.run(question):
                    found.add(answer)
            except Exception as error:
                found.error = error if isinstance(error, MmxError) else unexpected(error, question.name)
        return found

    def _consulted(self, asked: Asked) -> Any:
        """A space, which all commands share that ask it, and a language model beside it where captions are written."""
        models, placement = asked.models, asked.placement
        key = ("space", models.get("space"), models.get("bridge"), placement["device"])
        consulted = self._taken(key, lambda: _space(asked))
        if asked.command != "caption":
            return consulted
        key = ("lm", models.get("lm"), placement["device"], placement["dtype"])
        return consulted.writing(self._taken(key, lambda: _language_model(asked)))

    def _taken(self, key: tuple[Any, ...], load: Callable[[], Kept]) -> Any:
        kept = self._kept.pop(key, None)
        if kept is None or kept.state != state_of(kept.files):
            kept = load()
        self._kept[key] = kept
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return kept.loaded


def _translator(asked: Asked) -> Kept:
    from mmx.translate.base import Names
    from mmx.translate.load import load_anew

    where = placed(asked.placement["device"], asked.placement["dtype"])
    how = tuple((name, asked.placement[name]) for name in ("low_memory", "compile"))
    names = Names(asked.models.get("bridge"), asked.models.get("encoder"))
    translator = load_anew(asked.command, names, asked.models.get("decoder"), where, how)
    models = translator.models
    folders = [folder for at in models.values() for folder in (at.folder, at.companion) if folder]
    return Kept.of(translator, {role: at.name for role, at in models.items()}, folders)


def _space(asked: Asked) -> Kept:
    from mmx.spaces.answers import Consulted
    from mmx.spaces.load import load_space_anew

    models = asked.models
    space = load_space_anew(models.get("space"), bridge=models.get("bridge"), device=asked.placement["device"])
    return Kept.of(Consulted(space), {"space": space.name}, space.files)


def _language_model(asked: Asked) -> Kept:
    from mmx.guided.language import load_language_model

    placement = asked.placement
    lm = load_language_model(asked.models.get("lm"), placed(placement["device"], placement["dtype"]))
    return Kept.of(lm, {"lm": lm.at.name}, (lm.at.folder,))


def state_of(files: Iterable[Path]) -> State:
    """How files, and those in folders that models consist of, are now."""
    return tuple(state for path in files for state in _states(path))


def _states(path: Path) -> list[tuple[str, int, int]]:
    found = []
    for own in sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []:
        if own.suffix in (".json", ".safetensors"):
            about = own.stat()
            found.append((str(own), about.st_size, about.st_mtime_ns))
    return found
