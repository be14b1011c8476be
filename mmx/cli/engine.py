"""What computes a command's jobs: the models in this process, or a server that has them loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from mmx.errors import NetworkError, UsageError
from mmx.extras import require
from mmx.launch import launched
from mmx.network import Clustered
from mmx.options import BridgeAndDecoder, Settings
from mmx.serving.address import Address, find_server

if TYPE_CHECKING:
    from mmx.media.given import Done, Job
    from mmx.serving.wire import Asked


class Engine(Protocol):
    """place: where and in what it computes, and why there. models: what each is known by, by role. width: how many jobs
    it takes side by side, from as many threads."""

    place: str
    notice: str
    width: int

    @property
    def models(self) -> dict[str, dict[str, str]]: ...

    def run(self, job: Job) -> Done: ...

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

    def close(self) -> None:
        """They stay loaded."""


class Elsewhere:
    """The models in a server, and in this process from the moment on that a server which need not be there is gone."""

    width = 1

    def __init__(self, address: Address, command: str, models: BridgeAndDecoder, settings: Settings) -> None:
        from mmx.serving.client import Served, folders_in

        self.given = (command, models, settings)
        folders = {known: given for name in asdict(models).values() for known, given in folders_in(name).items()}
        self.engine: Engine = Served(address, _asked(*self.given, threads=_threads()), folders)
        self.required, self.place = address.required, self.engine.place
        self.notice, self.models = self.engine.notice, self.engine.models

    def run(self, job: Job) -> Done:
        """As `mmx.translate.job.run`, elsewhere."""
        try:
            return self.engine.run(job)
        except NetworkError:
            if self.required or isinstance(self.engine, Here):
                raise
        self.engine = Here(*self.given)
        return self.engine.run(job)

    def close(self) -> None:
        """They stay loaded, there."""


def _asked(command: str, models: BridgeAndDecoder, settings: Settings, *, threads: int | None) -> Asked:
    """The models as another process finds them."""
    from mmx.serving.client import absolute
    from mmx.serving.wire import Asked

    named = {role: absolute(name) for role, name in asdict(models).items()}
    return Asked(command, named, settings.placement, threads)


def _pool(
    spread: Clustered, command: str, models: BridgeAndDecoder, settings: Settings, note: Callable[[str], None]
) -> Engine:
    """The models on the machines of a cluster. Raises UsageError, NetworkError, ModelError."""
    require("--engine ray", "ray")
    if launched().world > 1:
        raise UsageError("--engine ray shares the work by itself", hint="start it once, without torchrun")
    import torch

    from mmx.cluster.pool import Pool, Wanted

    # as many threads as a run here would have: other threads sum in another order
    asked = _asked(command, models, settings, threads=torch.get_num_threads())
    return Pool(asked, Wanted(spread.address, spread.workers, spread.gpus), note)


def _threads() -> int | None:
    """As many as this process would compute with, where it was told how many; a server else has as many as ever."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and 1 <= int(told) <= 1024 else None


def open_engine(
    spread: Clustered, command: str, models: BridgeAndDecoder, settings: Settings, note: Callable[[str], None]
) -> Engine:
    """What a command computes with. note: is told what the user should know while it waits.

    Raises UsageError, ModelError, and NetworkError where a server or a cluster that must answer does not. What a server
    would have to fetch is left to this process.
    """
    if spread.engine == "ray":
        return _pool(spread, command, models, settings, note)
    from mmx.serving.client import Gone

    address = find_server(spread.server)
    if address is None:
        return Here(command, models, settings)
    try:
        return Elsewhere(address, command, models, settings)
    except Gone:
        if address.required:
            raise
    except NetworkError:
        pass
    return Here(command, models, settings)
