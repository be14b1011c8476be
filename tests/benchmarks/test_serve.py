"""A warm command beside what it computes, in seconds of processor time: other work on the machine does not count.

python -m pytest tests/benchmarks/test_serve.py -o addopts="" [--benchmark-json FILE]
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BARK = ROOT / "assets" / "samples" / "bark.wav"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TIMES = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server's process id and socket, with the starter loaded."""
    where = tmp_path / "serve.sock"
    line = [sys.executable, "-m", "mmx", "serve", "sound2img", "--socket", str(where)]
    process = subprocess.Popen(line, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline().startswith("mmx serve")
    yield process.pid, where
    process.send_signal(signal.SIGTERM)
    process.communicate()


def processor_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command(*words: object) -> tuple[float, float]:
    """Seconds of processor time, and of the clock, of a command in a process of its own."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "mmx", *map(str, words)], env=ENVIRONMENT, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - started


def bare() -> Callable[[], None]:
    """The same job in this process, with everything loaded."""
    import torch

    from mmx import load
    from mmx.media.given import Given, Job
    from mmx.options import Settings
    from mmx.translate.job import run

    torch.set_num_threads(1)
    translator, job = load("sound2img"), Job((Given("bark.wav", BARK.read_bytes()),), Settings())
    return lambda: run(translator, job)


def test_a_warm_command_beside_the_bare_job(benchmark, server, tmp_path: Path) -> None:
    """What the server computes: at most 1.3 of the job itself. The client's own start is the floor below it."""
    pid, where = server
    line = ("sound2img", BARK, "-o", tmp_path / "a.png", "--overwrite", "-q", "--server")
    for _ in range(2):  # the models are loaded by now, and what the first request imports
        command(*line, where)
    job = bare()
    job(), job()
    took: dict[str, list[float]] = {"client": [], "clock": [], "floor": [], "cold": []}
    served, own = [], []
    for _ in range(TIMES):
        before = processor_seconds(pid)
        client, clock = command(*line, where)
        served.append(processor_seconds(pid) - before)
        took["client"].append(client)
        took["clock"].append(clock)
        took["floor"].append(command("sound2img", tmp_path / "nope.wav")[0])
        before = time.process_time()
        job()
        own.append(time.process_time() - before)
    took["cold"] = [command(*line, "none")[0] for _ in range(2)]
    mean_served, mean_own = sum(served) / TIMES, sum(own) / TIMES  # ticks are coarse: means, not the best
    benchmark.extra_info |= {name: min(values) for name, values in took.items()}
    benchmark.extra_info |= {"served": mean_served, "bare": mean_own, "ratio": mean_served / mean_own}
    benchmark.extra_info |= {"warm": min(took["client"]) + mean_served}
    benchmark.pedantic(lambda: command(*line, where), rounds=1)
    assert mean_served < 1.3 * mean_own
    assert min(took["client"]) + mean_served < 0.5 * min(took["cold"])


@pytest.mark.parametrize("asks", ["tag", "search"])
def test_a_warm_question_beside_a_cold_one(benchmark, server, tmp_path: Path, asks: str) -> None:
    """Client and server together, in processor time: at most a quarter of the command without a server."""
    pid, where = server
    command("index", BARK.parent, "-o", tmp_path / "my.idx", "-q")
    line = {"tag": ("tag", BARK), "search": ("search", tmp_path / "my.idx", "a dog")}[asks]
    command(*line, "--server", where)  # its models are loaded by now
    took: dict[str, list[float]] = {"client": [], "clock": []}
    before = processor_seconds(pid)
    for _ in range(TIMES):
        client, clock = command(*line, "--server", where)
        took["client"].append(client)
        took["clock"].append(clock)
    served = (processor_seconds(pid) - before) / TIMES
    cold = [command(*line, "--server", "none") for _ in range(2)]
    warm = min(took["client"]) + served
    benchmark.extra_info |= {"client": min(took["client"]), "served": served, "clock": min(took["clock"])}
    benchmark.extra_info |= {"cold": min(cold)[0], "cold on the clock": min(clock for _, clock in cold)}
    benchmark.pedantic(lambda: command(*line, "--server", where), rounds=1)
    assert warm < 0.25 * min(cold)[0]
