"""mmx from Python: samples as programs hold them, threads, and forked processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from mmx import load
from mmx.errors import InputError, SilenceError, UsageError
from mmx.media.audio import Waveform, wav_bytes
from tests.conftest import RATE, tone

MONO = tone(1.0, 700.0)
STEREO = np.stack((MONO, 0.5 * MONO), 1)


@pytest.fixture
def translator(debug_models):
    return load("sound2img", bridge=str(debug_models[0]), decoder=str(debug_models[1]))


@pytest.mark.parametrize(
    ("samples", "like"),
    [
        (STEREO, 0.75 * MONO),
        (STEREO.T, 0.75 * MONO),
        (torch.from_numpy(STEREO.T.copy()), 0.75 * MONO),
        (MONO[:, None], MONO),
        (MONO.tolist(), MONO),
        (np.stack((MONO, -MONO)), MONO),  # of opposite phase: one of them is heard
        ((MONO * 32768).astype(np.int16), MONO),
        ((MONO * 2.0**31).astype(np.int32), MONO),
        ((MONO * 127 + 128).astype(np.uint8), MONO),
        (MONO.astype(np.float64), MONO),
    ],
)
def test_samples_of_any_shape_and_type_are_heard(translator, samples, like: np.ndarray) -> None:
    heard = translator.read((samples, RATE))
    assert heard.samples.dtype == np.float32 and heard.samples.shape == like.shape and heard.sample_rate == RATE
    np.testing.assert_allclose(heard.samples, like, atol=0.02)


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ((np.zeros(RATE, np.float32), RATE), SilenceError, "digital silence"),
        ((np.zeros((RATE, 2), np.float32), RATE), SilenceError, "digital silence"),
        (Waveform(np.zeros(RATE, np.float32), RATE), SilenceError, "digital silence"),
        ((np.zeros(0, np.float32), RATE), InputError, "no samples"),
        (([], RATE), InputError, "no samples"),
        ((np.zeros((0, 2), np.float32), RATE), InputError, "no samples"),
        ((np.zeros((2, 2, 9), np.float32), RATE), InputError, "shape"),
        ((np.full(RATE, np.nan, np.float32), RATE), InputError, "not numbers"),
        ((np.array(["a"]), RATE), InputError, "samples of type"),
        (((1000 * MONO).astype(np.int64), RATE), InputError, "samples of type int64"),
        ((np.ones((99, 99), np.float32), RATE), InputError, "99 channels"),
        ((MONO, 0), InputError, "a sample rate of 0"),
        ((MONO, "fast"), InputError, "no sample rate"),
        ((MONO,), InputError, "in the place of"),
    ],
)
def test_samples_that_can_not_be_heard_are_one_clear_error(translator, source, error, says: str) -> None:
    with pytest.raises(error, match=says):
        translator(source, steps=2)


def test_samples_are_heard_as_a_file_of_them_is(translator) -> None:
    long = np.concatenate((0.1 * tone(6.0, 300.0), tone(6.0, 900.0)))
    data = wav_bytes(Waveform(long, RATE))
    for part in ({}, {"start": 1.0, "duration": 2.0}):
        own, other = translator.read((long, RATE), **part), translator.read(data, **part)
        np.testing.assert_allclose(own.samples, other.samples, atol=1e-4)
    with pytest.raises(UsageError, match="no time"):
        translator((MONO, RATE), start=-1.0)


def test_threads_get_what_one_thread_gets(translator) -> None:
    sounds = [(tone(1.0, 300.0 + 200 * k), RATE) for k in range(6)]
    one = [translator(sound, steps=2)[0] for sound in sounds]
    with ThreadPoolExecutor(3) as pool:
        several = list(pool.map(lambda sound: translator(sound, steps=2)[0], sounds))
    assert all(np.array_equal(a, b) for a, b in zip(one, several, strict=True))


def test_two_loads_at_once_load_once(debug_models, monkeypatch) -> None:
    from mmx.translate import load as module

    module._loaded.cache_clear()
    begun, calls, real = threading.Barrier(2), [], module.load_decoder
    monkeypatch.setattr(module, "load_decoder", lambda *given: calls.append(given) or real(*given))

    def ask(_: int):
        begun.wait()
        return load("sound2img", bridge=str(debug_models[0]), decoder=str(debug_models[1]))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first is second and len(calls) == 1


def draw(connection, translator) -> None:
    connection.send(np.asarray(translator((MONO, RATE), steps=2)[0]))


def hold(translator, at_work: threading.Event, go: threading.Event) -> None:
    """As if another thread was translating until it may go."""
    with translator.alone:
        at_work.set()
        go.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_goes_on_with_what_was_loaded(translator) -> None:
    from mmx.device import threads

    ours, theirs = multiprocessing.Pipe()
    with threads(2):  # of which the child has one
        before: Image.Image = translator((MONO, RATE), steps=2)[0]
        at_work, go = threading.Event(), threading.Event()
        other = threading.Thread(target=hold, args=(translator, at_work, go))
        other.start()
        at_work.wait()
        child = multiprocessing.get_context("fork").Process(target=draw, args=(theirs, translator))
        child.start()
        go.set()
        other.join()
    try:
        assert ours.poll(60), "the child hangs"
        assert np.abs(ours.recv().astype(int) - np.asarray(before)).max() <= 1
    finally:
        child.kill()
        child.join()
