"""Two workers of a Ray cluster beside one, and one beside the bare job: on this machine, which must be idle.

python -m pytest tests/benchmarks/test_cluster.py -o addopts="" [--benchmark-json FILE]
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from mmx.media.given import Done, Given, Job
from mmx.options import Settings
from tests.conftest import ROOT

JOBS = 40
BUSY = 0.5  # waiting processes; with more the cores are others'


class Runs(Protocol):
    def run(self, job: Job) -> Done: ...


def rate(engine: Runs, width: int) -> float:
    """Jobs a second, each of another seed."""
    bark = Given("bark.wav", (ROOT / "assets" / "samples" / "bark.wav").read_bytes())
    jobs = [Job((bark,), Settings(seed=seed)) for seed in range(JOBS)]
    with ThreadPoolExecutor(width) as pool:
        list(pool.map(engine.run, jobs[: 2 * width]))  # warm
        started = time.perf_counter()
        list(pool.map(engine.run, jobs))
    return JOBS / (time.perf_counter() - started)


def of_workers(count: int) -> float:
    from mmx.cluster.pool import Pool, Wanted
    from mmx.serving.wire import ANYWHERE, Asked

    pool = Pool(Asked("sound2img", {}, ANYWHERE, 1), Wanted(workers=count))
    try:
        while pool.idle.qsize() < count:
            time.sleep(0.1)
        return rate(pool, pool.width)
    finally:
        pool.close()


def test_two_workers_beside_one(benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    if os.getloadavg()[0] > BUSY and not os.environ.get("MMX_BENCH_BUSY"):
        pytest.skip("other work has the cores: MMX_BENCH_BUSY=1 measures all the same")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import torch

    from mmx.cli.engine import Here
    from mmx.options import Models

    torch.set_num_threads(1)
    bare = rate(Here("sound2img", Models(), Settings()), 1)
    one, two = of_workers(1), of_workers(2)
    benchmark.extra_info |= {"jobs/s": bare, "one worker": one, "two workers": two}
    benchmark.pedantic(lambda: None)
    print(f"\nbare {bare:.2f}, one worker {one:.2f}, two workers {two:.2f} jobs/s: {two / one:.2f}")
    assert two >= 1.7 * one and one >= 0.9 * bare
