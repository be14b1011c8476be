"""Speech: the cache beside recomputing, and how much faster than real time it is.

python -m pytest tests/benchmarks/test_speech.py -o addopts="" -s
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers is imported)
from mmx.nets.speech import collapse
from mmx.nets.writer import Sampling
from tests.conftest import ROOT

BEAM, ROUNDS = 4, 5


@pytest.fixture(scope="module")
def translator():
    if not (ROOT / "assets" / "starter" / "img2speech").is_dir():
        pytest.skip("no starter model")
    from mmx.translate import load

    return load("img2speech", device="cpu")


def fastest(call) -> float:
    call()
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return min(took)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))


@torch.inference_mode()
def test_the_cache_beside_recomputing(benchmark, translator) -> None:
    """At least 3 times as fast, search and all, as the bare network run over the whole prefix of every beam for every unit."""
    writer, patches = translator.bridge.encoder, translator.bridge.prepare(picture())
    units = collapse(writer.write(patches, Sampling(BEAM), torch.Generator()))[0]
    beams, tokens = patches.expand(BEAM, -1, -1), units.expand(BEAM, -1)

    def recompute() -> None:
        for count in range(len(units) + 1):
            writer.language.lm_head(writer._hidden(beams, tokens[:, :count])[:, -1])

    cached, again = fastest(lambda: writer.write(patches, Sampling(BEAM), torch.Generator())), fastest(recompute)
    benchmark.extra_info |= {"units": len(units), "cached": cached, "recomputed": again, "times": again / cached}
    benchmark.pedantic(lambda: None, rounds=1)
    print(benchmark.extra_info)
    assert again >= 3 * cached


@torch.inference_mode()
def test_faster_than_real_time(benchmark, translator) -> None:
    """Seconds of work a second of speech: the vocoder alone, Griffin-Lim of the same mel, and the whole path from the picture."""
    from mmx.evaluation.img2speech import griffin_lim

    said = translator.translate(picture())
    spoken = len(said.media[0].samples) / said.media[0].sample_rate
    mel = translator.decoder.mel(said.conditioning[0])
    vocoder = fastest(lambda: translator.decoder.vocoder(mel[None]))
    peer = fastest(lambda: griffin_lim(mel))
    whole = fastest(lambda: translator.translate(picture()))
    benchmark.extra_info |= {"vocoder": vocoder / spoken, "griffin_lim": peer / spoken, "whole_path": whole / spoken}
    benchmark.pedantic(lambda: None, rounds=1)
    print(benchmark.extra_info)
    assert whole < spoken and vocoder < peer
