"""Joint spaces: how fast files get into an index and come out of it, beside bare loops, numpy and faiss.

Slow: a million vectors are made, and as many are put into a graph. MMX_BENCH_ROWS and MMX_BENCH_GRAPH make them fewer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.media.image import read_image
from mmx.spaces.base import MODALITIES
from mmx.spaces.index import Index
from mmx.spaces.indexing import SHARD, update
from mmx.spaces.load import load_space
from mmx.spaces.near import refreshed
from mmx.spaces.shards import write_shard
from tests.benchmarks.test_speed import ENVIRONMENT

ROWS, IN_GRAPH = (int(os.environ.get(f"MMX_BENCH_{name}", "1000000")) for name in ("ROWS", "GRAPH"))
DIM = 512
QUERIES, BEST = 20, 10
# in a process of its own, so that its memory is its own: opens the index, searches, and tells
SEARCH = """
import json, resource, sys, time, torch
from pathlib import Path
from mmx.spaces.index import Index
from mmx.spaces.search import Searcher
from tests.benchmarks.test_spaces import bare_space, queries
index, exact = Index.open(Path(sys.argv[1])), sys.argv[2] == "exact"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
searcher, asked, took, found = Searcher(index, bare_space(), exact=exact), queries(), [], []
for query in asked:
    started, used = time.perf_counter(), time.process_time()
    found.append([hit.row["path"] for hit in searcher.top(query, 10, "image")])
    took.append((time.perf_counter() - started, time.process_time() - used))
anonymous = [int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")][0]
print(json.dumps({"took": took, "found": found, "before": before, "anonymous": anonymous}))
"""
PEERS = """
import json, sys, time, numpy as np
from tests.benchmarks.test_spaces import queries
kind, vectors, asked = sys.argv[2], np.load(sys.argv[1]).astype(np.float32), queries().numpy()
if kind == "numpy":
    search = lambda q: np.argpartition(-(vectors @ q), 10)[:10]
else:
    import faiss
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(vectors.shape[1]); flat.add(vectors)
    search = lambda q: flat.search(q[None], 10)
took = []
for query in asked:
    started, used = time.perf_counter(), time.process_time()
    search(query)
    took.append((time.perf_counter() - started, time.process_time() - used))
print(json.dumps({"took": took}))
"""


def bare_space():
    """A space of the width of CLIP's, without models."""
    from mmx.spaces.base import Space

    return Space("bare", "b" * 64, DIM, encoders={}, scale={}, prompts={})


def vectors_of(number: int, count: int) -> np.ndarray:
    """A shard's rows: points about 48 directions, as embeddings lie, with noise in all the others; unit norm."""
    basis = np.random.default_rng(0).standard_normal((48, DIM)).astype(np.float32)
    rng = np.random.default_rng(number + 1)
    rows = rng.standard_normal((count, 48), np.float32) @ basis + 2.0 * rng.standard_normal((count, DIM), np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def queries() -> torch.Tensor:
    """Of the same kind as the rows."""
    return F.normalize(torch.from_numpy(vectors_of(10**6, QUERIES)).float(), dim=-1)


def run(script: str, *arguments: object) -> dict:
    """What a script tells, in a process of its own with one thread."""
    line = [sys.executable, "-c", script, *map(str, arguments)]
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    done = subprocess.run(line, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def median(told: dict, which: int) -> float:
    """Of a query's seconds (0) or CPU seconds (1); the first warms up."""
    return float(np.median([pair[which] for pair in told["took"][1:]]))


def filled(folder: Path, count: int) -> Index:
    """An index of so many rows, and the same vectors as one file."""
    index, every = Index(folder / "big.idx", "bare", "b" * 64, DIM), []
    index.folder.mkdir(parents=True)
    shards = []
    for number, start in enumerate(range(0, count, SHARD)):
        rows = vectors_of(number, min(SHARD, count - start))
        about = [{"path": f"/{start + k}.jpg", "modality": "image"} for k in range(len(rows))]
        shards.append(write_shard(index.folder / f"{number:06d}", about, rows))
        every.append(rows)
    np.save(folder / "all.npy", np.concatenate(every))
    return index.commit(shards, len(shards))


def megabytes(index: Path) -> float:
    """Of an index's vectors."""
    return sum(path.stat().st_size for path in index.rglob("vectors.npy")) / 2**20


def times(told: dict[str, dict]) -> dict[str, float]:
    """Milliseconds of a query, on the clock and of the CPU, by who searched."""
    found = {f"{name}_ms": 1000 * median(own, 0) for name, own in told.items()}
    return found | {f"{name}_cpu_ms": 1000 * median(own, 1) for name, own in told.items()}


def test_exact_search_in_a_million_vectors(benchmark, tmp_path: Path) -> None:
    """At most 600 ms of CPU a query, in far less memory than the vectors have; beside numpy's product and faiss's flat
    index, in float32 and in memory."""
    filled(tmp_path, ROWS)
    told = {"exact": run(SEARCH, tmp_path / "big.idx", "exact")}
    told |= {kind: run(PEERS, tmp_path / "all.npy", kind) for kind in ("numpy", "faiss")}
    size, anonymous = megabytes(tmp_path / "big.idx"), told["exact"]["anonymous"] / 1024
    benchmark.extra_info |= {"rows": ROWS, "vectors_mb": size, "anonymous_mb": anonymous} | times(told)
    print(json.dumps(benchmark.extra_info))
    benchmark.pedantic(lambda: None, rounds=1)
    assert median(told["exact"], 1) < 0.6 and anonymous < 0.6 * size


def test_a_graph_of_a_million_vectors(benchmark, tmp_path: Path) -> None:
    """At most 50 ms of CPU a query, and 0.95 of what exact search finds."""
    index, used = filled(tmp_path, IN_GRAPH), time.process_time()
    refreshed(index, torch.zeros(len(MODALITIES), DIM))
    built = time.process_time() - used
    near, exact = (run(SEARCH, tmp_path / "big.idx", how) for how in ("near", "exact"))
    shares = [len(set(a) & set(b)) / BEST for a, b in zip(near["found"], exact["found"], strict=True)]
    about = {"rows": IN_GRAPH, "recall_at_10": float(np.mean(shares)), "built_cpu_seconds": built}
    about |= {"vectors_mb": megabytes(tmp_path / "big.idx"), "anonymous_mb": near["anonymous"] / 1024}
    benchmark.extra_info |= about | times({"near": near, "exact": exact})
    print(json.dumps(benchmark.extra_info))
    benchmark.pedantic(lambda: None, rounds=1)
    assert np.mean(shares) >= 0.95 and median(near, 1) < 0.05


def test_indexing_beside_a_bare_loop(benchmark, tmp_path: Path) -> None:
    """Pictures into an index: at most 1.05 of the CPU time of a loop that reads and embeds them."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for k in range(300):
        Image.fromarray(rng.integers(0, 255, (128, 128, 3), np.uint8)).save(folder / f"{k}.jpg")
    space, paths = load_space(device="cpu"), sorted(folder.iterdir())

    def bare() -> float:
        used, found = time.process_time(), []
        for start in range(0, len(paths), 32):
            found.append(space.encode([read_image(path) for path in paths[start : start + 32]], "image"))
        torch.cat(found)
        return time.process_time() - used

    def ours(name: str) -> float:
        used = time.process_time()
        assert update(tmp_path / name, space, paths).rows == 300
        return time.process_time() - used

    bare(), ours("warm.idx")
    pairs = [(ours(f"{k}.idx"), bare()) for k in range(4)]
    mine, peer = (min(pair[k] for pair in pairs) for k in (0, 1))
    benchmark.extra_info |= {"files_a_cpu_second": 300 / mine, "bare": 300 / peer, "ratio": mine / peer}
    print(json.dumps(benchmark.extra_info))
    benchmark.pedantic(lambda: None, rounds=1)
    assert mine < 1.05 * peer


def test_an_unchanged_folder_is_indexed_again_at_once(benchmark, tmp_path: Path) -> None:
    """10,000 files: at most 5 s of CPU."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for k in range(10_000):
        (folder / f"{k}.txt").write_text(f"a photo of number {k}\n")
    os.utime(folder / "0.txt", (1, 1))
    time.sleep(2.5)  # a file that changed a moment ago may change again within one tick
    space, paths = load_space(device="cpu"), sorted(folder.iterdir())
    assert update(tmp_path / "a.idx", space, paths).embedded == 10_000
    update(tmp_path / "a.idx", space, paths)
    started, used = time.perf_counter(), time.process_time()
    assert update(tmp_path / "a.idx", space, paths).kept == 10_000
    again, wall = time.process_time() - used, time.perf_counter() - started
    benchmark.extra_info |= {"cpu_seconds": again, "seconds": wall}
    print(json.dumps(benchmark.extra_info))
    benchmark.pedantic(lambda: None, rounds=1)
    assert again < 5
