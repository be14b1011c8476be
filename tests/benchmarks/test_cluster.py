"""Two workers of a Ray cluster beside one, one beside the bare job, and two beside two processes of torchrun: on this
machine, which must be idle.

python -m pytest tests/benchmarks/test_cluster.py -o addopts="" [--benchmark-json FILE]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from mmx.media.given import Done, Given, Job
from mmx.options import Settings
from tests.conftest import ROOT

JOBS = 40
FEW, MANY = 8, 72  # files of two runs, whose difference is free of what starting costs
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


@pytest.fixture(autouse=True)
def idle() -> None:
    pytest.importorskip("ray")
    if os.getloadavg()[0] > BUSY and not os.environ.get("MMX_BENCH_BUSY"):
        pytest.skip("other work has the cores: MMX_BENCH_BUSY=1 measures all the same")


def test_two_workers_beside_one(benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
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


def seconds(folder: Path, out: Path, *words: str, after: tuple[str, ...] = ()) -> float:
    """Of a whole command, from its start to its end."""
    line = (*words, "-m", "mmx", "sound2img", str(folder), "-o", str(out), "-q", *after)
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    subprocess.run([sys.executable, *line], env=own, check=True, capture_output=True)
    return time.perf_counter() - started


def test_two_workers_beside_torchrun(benchmark, tmp_path: Path) -> None:
    """The same files, by two workers of Ray and by two processes of torchrun: what each file costs, and what starting
    does."""
    bark, took, made = (ROOT / "assets" / "samples" / "bark.wav").read_bytes(), {}, {}
    ways = {
        "torchrun": (("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"), ()),
        "ray": ((), ("--engine", "ray", "--workers", "2")),
    }
    for count in (FEW, MANY):
        folder = tmp_path / f"in-{count}"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:03d}.wav").write_bytes(bark)
        for name, (words, after) in ways.items():
            out = tmp_path / f"{name}-{count}"
            took[name, count] = seconds(folder, out, *words, after=after)
            made[name, count] = {path.name: path.read_bytes() for path in out.iterdir()}
    each = {name: (took[name, MANY] - took[name, FEW]) / (MANY - FEW) for name in ways}
    start = {name: took[name, FEW] - FEW * each[name] for name in ways}
    benchmark.extra_info |= {f"{name}: a file": each[name] for name in ways}
    benchmark.extra_info |= {f"{name}: starting": start[name] for name in ways} | {
        "ratio": each["ray"] / each["torchrun"]
    }
    benchmark.pedantic(lambda: None)
    for name in ways:
        print(f"\n{name}: {each[name]:.3f} s a file, {start[name]:.1f} s to start", end="")
    assert made["ray", MANY] == made["torchrun", MANY] and len(made["ray", MANY]) == MANY
    assert each["ray"] <= 1.15 * each["torchrun"]
