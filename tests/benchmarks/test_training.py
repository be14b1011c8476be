"""Training a bridge: speed beside loops that do without the cache, memory and start at 200,000 pairs, two processes.

python -m pytest tests/benchmarks/test_training.py -o addopts="" -s
"""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn

from mmx.training.engine.memory import keep_freed_memory
from tests.conftest import RATE, ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
STARTER = ROOT / "assets" / "starter"
STEPS, BATCH = 12, 32


def make_pairs(folder: Path, count: int) -> Path:
    """Sounds of 5 s and photos of 64 pixels with equal stems."""
    rng = np.random.default_rng(0)
    for name in ("audios", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        soundfile.write(folder / "audios" / f"{number}.wav", 0.1 * rng.standard_normal(5 * RATE), RATE)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(folder / "images" / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory):
    """The starter's image decoder, 256 pairs, and a bridge task on them whose features and targets are cached."""
    from mmx.bridges.frontends import LogMel
    from mmx.data.features import Embeddings
    from mmx.data.manifest import read_manifest
    from mmx.data.pairs import load_pairs
    from mmx.decoders.unclip import ImageDecoder
    from mmx.models.store import locate
    from mmx.training.bridges.base import BridgeRecipe, Setting
    from mmx.training.bridges.sound import SoundBridgeTask

    folder = make_pairs(tmp_path_factory.mktemp("pairs"), 256)
    at = locate(None, "sound2img", "decoder")
    decoder = ImageDecoder.load(at.folder)
    recipe = BridgeRecipe("sound2img", str(folder), folder / "run", loss="infonce", cache=folder / "cache", quiet=True)
    loaded = load_pairs(
        read_manifest(str(folder), "sound2img"),
        LogMel(),
        Embeddings(decoder),
        recipe.team,
        cache=recipe.cache,
        quiet=True,
    )
    loaded.val = None
    sides = SoundBridgeTask.sides(recipe, decoder, loaded.manifest)
    return folder, decoder, SoundBridgeTask(Setting(recipe, decoder, sides, loaded))


def rate_of(step, steps: int = STEPS, stretches: int = 3) -> float:
    """Samples a second of `step(number)`, the best of some stretches."""
    step(0)
    rates = []
    for _ in range(stretches):
        started = time.perf_counter()
        for number in range(steps):
            step(number)
        rates.append(steps * BATCH / (time.perf_counter() - started))
    return max(rates)


def optimise(task, batch, optimizer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = task.loss(batch, torch.Generator())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def ours(task):
    """As `Run` steps; that it keeps freed memory holds for the process, so the others are measured before."""
    keep_freed_memory()
    optimizer = torch.optim.AdamW(task.module.train().parameters(), 1e-4)

    def step(number: int) -> None:
        optimise(task, task.batch(BATCH, torch.Generator().manual_seed(number)), optimizer)

    return step


def with_the_teacher(task, folder: Path, embed):
    """The same features and model, but every step decodes its photos and runs the frozen teacher on them."""
    from mmx.decoders.teacher import pixels_of

    optimizer = torch.optim.AdamW(task.module.train().parameters(), 1e-4)

    def step(number: int) -> None:
        batch = task.batch(BATCH, torch.Generator().manual_seed(number))
        picks = np.random.default_rng(number).integers(0, 256, BATCH)
        pixels = torch.stack([pixels_of(Image.open(folder / "images" / f"{i}.jpg").convert("RGB"), 64) for i in picks])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            batch["targets"] = embed(pixels).float()
        optimise(task, batch, optimizer)

    return step


def as_sound2scene(task, folder: Path, decoder):
    """Its loop: a Dataset reads a wav, computes its spectrogram and decodes the photo, a DataLoader collates, the
    frozen encoder runs.
    """
    from torch.utils.data import DataLoader, Dataset

    from mmx.decoders.teacher import pixels_of
    from mmx.nets.sound import FRAMES, log_mel, standardise

    class Pairs(Dataset):
        def __len__(self) -> int:
            return 256

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            samples, _ = soundfile.read(folder / "audios" / f"{index}.wav", dtype="float32")
            mel = log_mel(torch.from_numpy(samples))[:, :FRAMES]
            return standardise(mel), pixels_of(Image.open(folder / "images" / f"{index}.jpg").convert("RGB"), 64)

    optimizer = torch.optim.AdamW(task.module.train().parameters(), 1e-4)
    state: dict = {"batches": iter(())}

    def step(number: int) -> None:
        batch = next(state["batches"], None)
        if batch is None:
            state["batches"] = iter(DataLoader(Pairs(), BATCH, shuffle=True, drop_last=True))
            batch = next(state["batches"])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            targets = decoder.teacher.net.encode_image(batch[1]).float()
        own = torch.arange(BATCH)
        optimise(
            task,
            {
                "features": batch[0],
                "targets": targets,
                "labels": torch.stack((own, own), 1),
                "share": torch.zeros(BATCH),
            },
            optimizer,
        )

    return step


def test_cached_targets_beside_a_teacher_each_step(benchmark, setting) -> None:
    """At least 5 times the samples a second with CLIP ViT-L/14, the teacher of Stable unCLIP's smaller model (random
    weights); beside ViT-B/32 and the starter's, reported."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder, decoder, task = setting
    dim = decoder.spec.shape[0]
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}

    def embed(sizes: dict):
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=dim, **sizes)).eval().requires_grad_(False)
        return lambda pixels: clip(nn.functional.interpolate(pixels, size=224)).image_embeds

    rates = {
        "starter": rate_of(with_the_teacher(task, folder, decoder.teacher.net.encode_image)),
        "vit_b32": rate_of(with_the_teacher(task, folder, embed({"patch_size": 32}))),
        "vit_l14": rate_of(with_the_teacher(task, folder, embed({"patch_size": 14} | large)), steps=2, stretches=1),
    }
    cached = rate_of(ours(task))
    times = {f"times_{name}": cached / rate for name, rate in rates.items()}
    benchmark.extra_info |= {"cached": cached} | rates | times
    benchmark.pedantic(lambda: ours(task)(0), rounds=1)
    assert times["times_vit_l14"] >= 5


def test_beside_sound2scenes_loop(benchmark, setting) -> None:
    """At least 1.5 times the samples a second of a loop without any cache, on the same model."""
    folder, decoder, task = setting
    theirs = rate_of(as_sound2scene(task, folder, decoder))
    cached = rate_of(ours(task))
    benchmark.extra_info |= {"ours": cached, "sound2scene": theirs, "times": cached / theirs}
    benchmark.pedantic(lambda: ours(task)(0), rounds=1)
    assert cached / theirs >= 1.5


def sparse_shard(path: Path, keys: np.ndarray, length: int, width: int) -> None:
    """A cache shard whose data is a hole in the file: as large as a real one, and made at once."""
    ends = (np.arange(1, len(keys) + 1) * length).astype(np.int64)
    size = len(keys) * length * width * 2
    spans = np.cumsum([0, keys.nbytes, ends.nbytes, size])
    header = {
        name: {"dtype": kind, "shape": shape, "data_offsets": [int(spans[k]), int(spans[k + 1])]}
        for k, (name, kind, shape) in enumerate(
            (("keys", "I64", [len(keys)]), ("ends", "I64", [len(keys)]), ("data", "F16", [len(keys) * length, width]))
        )
    }
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + keys.tobytes() + ends.tobytes())
        file.truncate(8 + len(text) + int(spans[-1]))


def make_many(folder: Path, count: int) -> Path:
    """A manifest of `count` pairs of files, all in the cache already: the state in which every run but the first
    starts.
    """
    from mmx.bridges.frontends import LogMel
    from mmx.data.digests import Digests
    from mmx.data.features import Embeddings
    from mmx.data.fill import Space
    from mmx.decoders.unclip import ImageDecoder

    decoder = ImageDecoder.load(STARTER / "image")
    cache = folder / "cache"
    base = Digests(cache).base
    base.execute("PRAGMA synchronous=OFF")
    with (folder / "pairs.jsonl").open("w") as manifest:
        for number in range(count):
            row = {"source": f"s/{number // 1000}/{number}.wav", "target": f"t/{number // 1000}/{number}.jpg"}
            manifest.write(json.dumps(row) + "\n")
    for side, suffix, features, length in (("s", "wav", LogMel(), 301), ("t", "jpg", Embeddings(decoder), 2)):
        keys = np.random.default_rng(ord(side)).integers(1, 1 << 63, count, dtype=np.int64)
        rows = []
        for number in range(count):
            path = folder / side / str(number // 1000) / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            rows.append((str(path), 0, 0, path.stat().st_mtime_ns, int(keys[number])))
        with base:
            base.executemany("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", rows)
        sparse_shard(Space.of(cache, features).cache.folder / "all.safetensors", keys, length, features.empty.shape[1])
    base.close()
    assert sqlite3.connect(cache / "digests.sqlite").execute("SELECT COUNT(*) FROM seen").fetchone()[0] == 2 * count
    return folder


def start(folder: Path, *launch: str, steps: int = 6, batch: int = 32) -> tuple[float, float]:
    """Seconds to the first step, and peak memory in MB."""
    script = (
        "import resource, subprocess, sys; p = subprocess.run(sys.argv[1:], stdout=2);"
        "print(p.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    command = [sys.executable, *launch, "-m", "mmx", "train-bridge", "sound2img", "--data", str(folder / "pairs.jsonl")]
    command += [
        "-o",
        str(folder / f"run{time.time_ns()}"),
        "--cache",
        str(folder / "cache"),
        "--prior-steps",
        "0",
        "--json",
        "--quiet",
    ]
    command += ["--max-steps", str(steps), "--batch-size", str(batch)]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    first = None
    for line in process.stderr:
        if first is None and '"event": "step"' in line:
            first = time.perf_counter() - begun
    code, megabytes = process.stdout.read().split()
    assert code == "0"
    return first, float(megabytes)


def test_memory_and_start_at_200_000_pairs(benchmark, tmp_path: Path) -> None:
    """Peak memory within 10 % of that at 1,000 pairs, and the first step in less than 20 s."""
    folders = [tmp_path / name for name in ("few", "many")]
    for folder, count in zip(folders, (1_000, 200_000), strict=True):
        folder.mkdir()
        make_many(folder, count)
    # in turns, and the middle of three: where threads happen to take memory from differs by 6 % from run to run
    runs = np.array([[start(folder) for folder in folders] for _ in range(3)])
    small, large = np.median(runs, axis=0).tolist()
    benchmark.extra_info |= {
        "start_1k": small[0],
        "start_200k": large[0],
        "memory_1k_mb": small[1],
        "memory_200k_mb": large[1],
        "memory_ratio": large[1] / small[1],
    }
    benchmark.pedantic(lambda: None, rounds=1)
    assert large[0] < 20 and large[1] < 1.1 * small[1]


@pytest.mark.parametrize("architecture", ["cnn", "transformer"])
def test_two_processes_beside_one(benchmark, tmp_path: Path, architecture: str) -> None:
    """At least 1.7 times the throughput when each process has a core."""
    (tmp_path / "p").mkdir()
    folder = make_many(tmp_path / "p", 1_000)
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1"}

    def rate(*launch: str) -> float:
        run = folder / f"run{time.time_ns()}"
        command = [
            sys.executable,
            *launch,
            "-m",
            "mmx",
            "train-bridge",
            "sound2img",
            "--data",
            str(folder / "pairs.jsonl"),
            "-o",
            str(run),
        ]
        command += [
            "--cache",
            str(folder / "cache"),
            "--prior-steps",
            "0",
            "--quiet",
            "--max-steps",
            "50",
            "--device",
            "cpu",
            "--architecture",
            architecture,
        ]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        lines = [json.loads(line) for line in (run / "bridge" / "log.jsonl").read_text().splitlines()]
        return next(line["samples_per_second"] for line in lines if line["step"] == 50 and "loss" in line)

    one = rate()
    two = rate("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29619")
    benchmark.extra_info |= {"one": one, "two": two, "times": two / one}
    benchmark.pedantic(lambda: None, rounds=1)
    assert two / one >= 1.7
