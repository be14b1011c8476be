"""Speed and memory, each as a ratio to a peer or a limit measured in the same run.

python -m pytest tests/benchmarks -o addopts="" [--benchmark-json FILE]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

STARTER = ROOT / "assets" / "starter"
BARK = ROOT / "assets" / "samples" / "bark.wav"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@dataclass
class Cost:
    """A process's wall time in seconds and its peak memory in MB."""

    seconds: float
    megabytes: float


def cost(*command: str | Path) -> Cost:
    script = (
        "import resource, subprocess, sys, time; t = time.perf_counter();"
        "subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL);"
        "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)], capture_output=True, check=True, env=ENVIRONMENT
    )
    return Cost(*map(float, done.stdout.split()))


def best(runs: list[Cost]) -> Cost:
    return Cost(min(run.seconds for run in runs), min(run.megabytes for run in runs))


def ours(out: Path, num: int) -> tuple[str | Path, ...]:
    return (sys.executable, "-m", "mmx", "sound2img", BARK, "-o", out, "-n", str(num), "--overwrite", "--quiet")


def by_hand(out: Path, num: int) -> tuple[str | Path, ...]:
    script = ROOT / "tests" / "benchmarks" / "by_hand.py"
    return (sys.executable, script, STARTER / "sound2img", STARTER / "image", BARK, out, str(num))


def test_the_command_beside_a_script_by_hand(benchmark, tmp_path: Path) -> None:
    """From the shell to the file, four pictures: at most 1.05 of the script's time, at most 1.1 of its memory."""
    pairs = [(cost(*ours(tmp_path / "a.png", 4)), cost(*by_hand(tmp_path / "b.png", 4))) for _ in range(4)]
    mine, peer = (best([pair[k] for pair in pairs]) for k in (0, 1))
    benchmark.extra_info |= {
        "seconds": mine.seconds,
        "by_hand_seconds": peer.seconds,
        "time_ratio": mine.seconds / peer.seconds,
        "memory_mb": mine.megabytes,
        "memory_ratio": mine.megabytes / peer.megabytes,
    }
    benchmark.pedantic(lambda: cost(*ours(tmp_path / "c.png", 4)), rounds=1)
    assert mine.seconds < 1.05 * peer.seconds and mine.megabytes < 1.1 * peer.megabytes


def test_eight_pictures_cost_less_each(benchmark, tmp_path: Path) -> None:
    """-n 8: at least twice as fast a picture as -n 1, loading included."""
    one = best([cost(*ours(tmp_path / "a.png", 1)) for _ in range(3)]).seconds
    eight = best([cost(*ours(tmp_path / "b.png", 8)) for _ in range(3)]).seconds
    benchmark.extra_info |= {"one": one, "eight": eight, "times_faster_each": one / (eight / 8)}
    benchmark.pedantic(lambda: cost(*ours(tmp_path / "c.png", 8)), rounds=1)
    assert one / (eight / 8) >= 2


def test_help_beside_the_bare_interpreter(benchmark) -> None:
    """`mmx --help` takes at most 0.35 s more than an interpreter that does nothing."""
    bare = best([cost(sys.executable, "-c", "pass") for _ in range(5)]).seconds
    mine = best([cost(sys.executable, "-m", "mmx", "--help") for _ in range(5)]).seconds
    benchmark.extra_info |= {"help": mine, "bare": bare}
    benchmark.pedantic(lambda: cost(sys.executable, "-m", "mmx", "--help"), rounds=1)
    assert mine - bare < 0.35


def matmul_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """The machine's FLOP/s at large matrix products."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    a @ b
    took = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        took.append(time.perf_counter() - started)
    return 2 * size**3 / min(took)


def test_training_beside_the_matmul_peak(benchmark) -> None:
    """A training step of the starter's denoiser: images/s, and its share of what the machine can multiply."""
    from torch.utils.flop_counter import FlopCounterMode

    from mmx.training.decoders.denoiser import DenoiserConfig, DenoiserTask

    latents, embeds = torch.randn(256, 16, 8, 8), torch.randn(256, 512)
    task = DenoiserTask(latents, embeds, (latents, embeds), torch.zeros(1, 512), None, DenoiserConfig())
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = task.loss(task.batch(128, generator), generator)
        loss.backward()
        task.module.zero_grad()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    benchmark.pedantic(step, rounds=5)
    seconds = benchmark.stats.stats.min
    share = counter.get_total_flops() / seconds / matmul_peak(torch.bfloat16)
    benchmark.extra_info |= {"images_a_second": 128 / seconds, "share_of_matmul_peak": share}
    assert share > 0.15


def test_a_face_beside_its_plain_modules(benchmark, tmp_path: Path) -> None:
    """voice2face from file to PNG, load excluded: at most 1.1 of the same modules called one after the other."""
    if not (STARTER / "face").is_dir():
        pytest.skip("no face starter")
    from mmx import load
    from mmx.media.voice_activity import speech_part
    from mmx.translate.job import Given, Job, Settings, run

    translator = load("voice2face")
    voice = ROOT / "assets" / "samples" / "voices" / "low.wav"
    given = Given("low.wav", voice.read_bytes())

    def mine() -> None:
        artifact = run(translator, Job((given,), Settings(), command="voice2face")).artifacts[0]
        (tmp_path / "a.png").write_bytes(artifact.data)

    def plain() -> None:
        from mmx.media.audio import read_audio

        with torch.inference_mode():
            wave = speech_part(read_audio(voice, sample_rate=16_000))
            bridge, decoder = translator.bridge, translator.decoder
            generator = torch.Generator().manual_seed(0)
            raw = bridge.sample(bridge(bridge.prepare(wave)[None])[0], generator)
            picture = decoder.pipeline(
                image_embeds=raw[None],
                negative_image_embeds=decoder.negative,
                height=64,
                width=64,
                num_inference_steps=decoder.defaults["steps"],
                guidance_scale=decoder.defaults["guidance"],
                generator=generator,
            ).images[0]
        picture.save(tmp_path / "b.png")

    def seconds(function) -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    seconds(mine), seconds(plain)
    both = [(seconds(mine), seconds(plain)) for _ in range(7)]
    own, floor = (min(pair[k] for pair in both) for k in (0, 1))
    benchmark.extra_info |= {"seconds": own, "plain_seconds": floor, "ratio": own / floor}
    benchmark.pedantic(mine, rounds=1)
    assert own < 1.1 * floor
