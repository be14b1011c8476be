"""What computes a command's jobs: the models in this process, or a server that has them loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mmx.errors import NetworkError, UsageError
from mmx.extras import require
from mmx.launch import launched
from mmx.network import Clustered, Network
from mmx.options import BridgeAndDecoder, Settings
from mmx.serving.address import Address, find_server

if TYPE_CHECKING:
    from mmx.guided.avatar_given import Dressed, Order, Watcher
    from mmx.media.given import Done, Job, Watch
    from mmx.serving.wire import Asked
    from mmx.spaces.question import Answer, Question

T = TypeVar("T")


class Engine(Protocol):
    """place: where and in what it computes, and why there. models: what each is known by, by role. width: how many jobs
    it takes side by side, from as many threads."""

    place: str
    notice: str
    width: int

    @property
    def models(self) -> dict[str, dict[str, str]]: ...

    def run(self, job: Job) -> Done: ...

    def watched(self, watch: Watch) -> None: ...

    def close(self) -> None: ...


class Here:
    """The models in this process. Raises ModelError, UsageError while they are loaded."""

    width = 1

    def __init__(self, command: str, models: BridgeAndDecoder, settings: Settings) -> None:
        from mmx.device import placed  # from here on it is slow: torch and the models
        from mmx.translate.load import load

        self.translator = load(command, **vars(models), **settings.placement)
        where = placed(settings.device, settings.dtype)
        self.place = f"{where.device} {where.name}: {where.reason}"
        self.notice = self.translator.notice

    @cached_property
    def models(self) -> dict[str, dict[str, str]]:
        return {role: at.as_dict() for role, at in self.translator.models.items()}

    def run(self, job: Job) -> Done:
        """As `mmx.translate.job.run`."""
        from mmx.translate.job import run

        return run(self.translator, job)

    def watched(self, watch: Watch) -> None:
        """Have each step told, where it goes by steps."""
        self.translator.watch = watch

    def close(self) -> None:
        """They stay loaded, and tell nobody any more."""
        self.translator.watch = None


class Elsewhere:
    """The models in a server, and in this process from the moment on that a server which need not be there is gone.

    names: of models and folders, as the user gave them. here: loads the models in this process.
    """

    width = 1

    def __init__(self, address: Address, asked: Asked, names: Iterable[str | None], here: Callable[[], Any]) -> None:
        from mmx.serving.client import Served, folders_in

        folders = {known: given for name in names for known, given in folders_in(name).items()}
        self.engine: Any = Served(address, asked, folders)
        self.here: Callable[[], Any] | None = None if address.required else here
        self.place, self.notice = self.engine.place, self.engine.notice
        self.models, self.facts = self.engine.models, self.engine.facts
        self.watch: Watch | None = None

    def run(self, job: Job) -> Done:
        """As `mmx.translate.job.run`, elsewhere."""
        return self._either(lambda engine: engine.run(job))

    def watched(self, watch: Watch) -> None:
        """Have each step told, wherever it is computed."""
        self.watch = watch
        self.engine.watched(watch)

    def ask(self, question: Question) -> Iterable[Answer]:
        """As `Consulted.run`, elsewhere."""
        return self._either(lambda engine: engine.ask(question))

    def dress(self, order: Order, watcher: Watcher) -> Dressed:
        """As `mmx.guided.avatar_job.dress`, elsewhere."""
        return self._either(lambda engine: engine.dress(order, watcher))

    def _either(self, call: Callable[[Any], T]) -> T:
        try:
            return call(self.engine)
        except NetworkError:
            if self.here is None:
                raise
        self.engine, self.here = self.here(), None
        if self.watch is not None:
            self.engine.watched(self.watch)
        return call(self.engine)

    def close(self) -> None:
        """They stay loaded, there."""


@dataclass(frozen=True)
class Wants:
    """What a command wants to compute with: models by role, as the user names them, and where they compute. folders:
    that errors of a server may name, too. here: loads them in this process."""

    command: str
    models: Mapping[str, str | None]
    placement: Mapping[str, Any]
    here: Callable[[], Any]
    folders: tuple[str, ...] = ()

    def asked(self, threads: int | None) -> Asked:
        """The models as another process finds them."""
        from mmx.serving.client import absolute
        from mmx.serving.wire import Asked

        named = {role: absolute(name) for role, name in self.models.items()}
        return Asked(self.command, named, dict(self.placement), threads)


def _pool(spread: Clustered, wants: Wants, note: Callable[[str], None]) -> Any:
    """The models on the machines of a cluster. Raises UsageError, NetworkError, ModelError."""
    require("--engine ray", "ray")
    if launched().world > 1:
        raise UsageError("--engine ray shares the work by itself", hint="start it once, without torchrun")
    import torch

    from mmx.cluster.pool import Pool, Wanted

    # as many threads as a run here would have: other threads sum in another order
    asked = wants.asked(torch.get_num_threads())
    return Pool(asked, Wanted(spread.address, spread.workers, spread.gpus), note)


def _threads() -> int | None:
    """As many as this process would compute with, where it was told how many; a server else has as many as ever."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and 1 <= int(told) <= 1024 else None


def open_engine(
    spread: Clustered, command: str, models: BridgeAndDecoder, settings: Settings, note: Callable[[str], None]
) -> Engine:
    """What a translating command computes with. note, and what is raised: as of `connected`."""
    here = partial(Here, command, models, settings)
    return connected(spread, Wants(command, asdict(models), settings.placement, here), note)


def connected(spread: Network, wants: Wants, note: Callable[[str], None]) -> Any:
    """What a command computes with. note: is told what the user should know while it waits.

    Raises UsageError, ModelError, and NetworkError where a server or a cluster that must answer does not. What a server
    would have to fetch is left to this process.
    """
    if spread.on_ray:
        assert isinstance(spread, Clustered)
        return _pool(spread, wants, note)
    from mmx.serving.client import Gone

    address = find_server(spread.server)
    if address is None:
        return wants.here()
    try:
        return Elsewhere(address, wants.asked(_threads()), (*wants.models.values(), *wants.folders), wants.here)
    except Gone:
        if address.required:
            raise
    except NetworkError:
        pass
    return wants.here()
