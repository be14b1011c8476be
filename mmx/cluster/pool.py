"""A command's models on many machines: each job goes to a worker that is idle, and to another one where it is lost."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import mmx
from mmx.cluster.worker import Worker
from mmx.errors import DeadlyError, MmxError, ModelError, NetworkError, UsageError
from mmx.media.given import Done, Job, Watch
from mmx.serving.wire import Asked
from mmx.spaces.question import Answer, Question

TRIES = 3  # of a job: whoever takes the worker with it so often is at fault itself
LOADS = 3  # of a worker that dies before its models are loaded
CONNECT = 10.0  # seconds that a cluster may take to accept
START = "ray start --head starts one; without --address this machine is the cluster"
LESS = "OMP_NUM_THREADS says how many CPUs each takes, --gpus what of a GPU"
SAME = "all machines need the same mmx, and the same model files at the same place"
AWAKE = 0.5  # seconds after which who waits for a worker looks whether anybody still wants it
PATIENCE = 30.0  # seconds between two notes on what is waited for


@dataclass(frozen=True)
class Wanted:
    """Which cluster, how many workers there are to be, and what of a GPU each has; None: as there is room."""

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None


class Pool:
    """Workers with the same models, each with one job at a time. Threads may call `run` side by side.

    A worker that is lost is replaced, and its job done by another. place, notice, models: as an engine says them.

    Raises UsageError, NetworkError where no cluster answers, and what the models raise where no worker can load them.
    """

    def __init__(self, asked: Asked, wanted: Wanted, note: Callable[[str], None] = lambda text: None) -> None:
        self.asked, self.note = asked, note
        self.idle: Queue[Any] = Queue()  # workers, or in the end the error for which there are none
        self.lock = threading.Lock()
        self.opened: dict[str, Any] | None = None  # what the first worker said of its models
        self.starting: list[threading.Thread] = []
        self.closed = False
        self.ray = _joined(wanted.address)
        try:
            self.each, self.workers = self._room(wanted)
            self.living = self.workers
            self.width = self.workers + 2  # jobs: the next ones are read while these are computed
            for _ in range(self.workers):
                self._start()
            self.idle.put(self._take())
        except BaseException:
            self.close()
            raise
        assert self.opened is not None
        self.notice, self.models = self.opened["notice"], self.opened["models"]
        self.facts: dict[str, Any] = self.opened.get("facts", {})
        self.place = f"{self.workers} workers of Ray, each {self.opened['place']}"

    def run(self, job: Job) -> Done:
        """As `mmx.translate.job.run`, by any worker. Raises DeadlyError for a job that every worker dies of."""
        return self._done(job, job.inputs[0].name)

    def watched(self, watch: Watch) -> None:
        """Workers do not tell of their steps: several jobs are in work."""

    def ask(self, question: Question) -> list[Answer]:
        """As `Consulted.run`, by any worker and all at once. Raises DeadlyError for what every worker dies of."""
        return [self._done(question.sent(), question.name)]

    def _done(self, work: Job | Question, name: str) -> Any:
        for _ in range(TRIES):
            worker = self._take()
            try:
                answer = self.ray.get(worker.run.remote(work))
            except self.ray.exceptions.RayTaskError as error:
                self.idle.put(worker)
                raise MmxError(f"the worker's answer can't be read: {error.cause}") from None
            except self.ray.exceptions.RayError as error:
                self.note(f"a worker was lost ({type(error).__name__}); another one goes on")
                self._start()
                continue
            self.idle.put(worker)
            if isinstance(answer, Exception):
                raise answer
            return answer
        raise DeadlyError(f"{name}: {TRIES} workers died of it", hint="it may need more memory than they have")

    def close(self) -> None:
        """Leave the cluster, which ends the workers. No thread may ask Ray for anything any more: it would crash."""
        self.closed = True
        for thread in self.starting:
            thread.join()
        self.ray.shutdown()

    def _room(self, wanted: Wanted) -> tuple[dict[str, float], int]:
        """What each worker takes of its machine, and how many workers there are. Raises UsageError."""
        there = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        gpus = any("GPU" in machine for machine in there) and self.asked.placement["device"] != "cpu"
        share = float(gpus) if wanted.gpus is None else wanted.gpus
        # beside a GPU the threads have little to do
        each = {"CPU": 1.0, "GPU": share} if share else {"CPU": float(self.asked.threads or 1)}
        fit = sum(int(min(machine.get(kind, 0) // need for kind, need in each.items())) for machine in there)
        self.need = " and ".join(f"{need:g} {kind}s" for kind, need in each.items())
        if not fit and wanted.workers is None:
            raise UsageError(f"no machine of the cluster has {self.need} for a worker", hint=LESS)
        if wanted.workers is not None and wanted.workers > fit:
            self.note(f"there is room for {fit} workers of {self.need} each, until the cluster grows; {LESS}")
        return {"num_cpus": each["CPU"], "num_gpus": share}, wanted.workers or fit

    def _start(self) -> None:
        """One more worker, idle once its models are loaded."""
        self.starting = [thread for thread in self.starting if thread.is_alive()]
        self.starting.append(threading.Thread(target=self._begun))
        self.starting[-1].start()

    def _begun(self) -> None:
        for _ in range(LOADS):
            actor = self.ray.remote(Worker).options(**self.each, max_restarts=0)
            worker = actor.remote(self.asked, os.environ.get("HF_HUB_OFFLINE", "") == "1")
            try:
                answer = self._opened(worker.open.remote())
                break
            except self.ray.exceptions.RayError as error:  # it died
                answer = ModelError(f"workers die while they load the models: {_why(error)}", hint=SAME)
        if answer is None:
            return
        if not isinstance(answer, Exception):
            answer = self._other(answer) or answer
        if isinstance(answer, Exception):
            self._gone(answer)
        else:
            self.idle.put(worker)

    def _opened(self, reference: Any) -> dict[str, Any] | Exception | None:
        """What a worker says once its models are loaded, None where we are gone by then. Raises Ray's errors."""
        while not self.closed:
            with suppress(self.ray.exceptions.GetTimeoutError):
                return self.ray.get(reference, timeout=AWAKE)
        return None

    def _other(self, about: dict[str, Any]) -> MmxError | None:
        """What is wrong with a worker whose models, or whose mmx, are not as those of the first."""
        with self.lock:
            self.opened = self.opened or about
        if about["version"] != mmx.__version__:
            return ModelError(f"the worker on {about['host']} is mmx {about['version']}, this is {mmx.__version__}")
        if about["models"] != self.opened["models"]:
            return ModelError(f"the worker on {about['host']} has other models", hint=SAME)
        return None

    def _gone(self, error: Exception) -> None:
        """A worker is there no more. With the last one ends all that waits."""
        with self.lock:
            self.living -= 1
            last = self.living == 0
        if last:
            self.idle.put(error)
        else:
            self.note(f"a worker less: {error}")

    def _take(self) -> Any:
        """An idle worker, once there is one. Raises the error for which there are none."""
        while True:
            try:
                found = self.idle.get(timeout=PATIENCE)
            except Empty:
                if self.opened is None:
                    self.note(f"waiting for a worker with {self.need}")
                continue
            if isinstance(found, Exception):
                self.idle.put(found)
                raise found
            return found


def _why(error: Exception) -> str:
    """What Ray says of a worker that died, in a line: the error that it died of, or that it was killed."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if re.match(r"\w+(\.\w+)*Error: ", lines[-1]) else lines[0]


def _joined(address: str | None) -> Any:
    """Ray, once this process is part of a cluster: that of the address, or that this machine belongs to, or its own.

    Raises NetworkError, UsageError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):  # what a cluster says would go to stdout, where results are
        worker.print_to_stdstream = lambda *_, **__: None
    address = address or os.environ.get("RAY_ADDRESS") or None
    _answers(address)
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    except ConnectionError as error:
        raise NetworkError(f"no Ray cluster answers{f' at {address}' if address else ''}", START) from error
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"--address {address}: {str(error).splitlines()[0]}", hint="HOST:PORT, or auto") from None
    except Exception as error:  # of no class of Ray's own, as where this machine is too busy for it to start
        raise NetworkError(f"Ray does not start: {_why(error)}", START) from None
    return ray


def _answers(address: str | None) -> None:
    """Raise NetworkError where nothing listens at HOST:PORT: Ray itself would wait for minutes, and exit."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise NetworkError(f"no Ray cluster answers at {address}: {error}", START) from None
