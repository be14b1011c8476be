"""Where in a recording somebody speaks."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import torch

from mmx.compat import torchaudio  # noqa: F401  (imported first: see there)
from mmx.device import threads_for
from mmx.errors import InputError
from mmx.media.audio import Waveform
from mmx.media.formats import SAMPLE_RATE, VOICE_SPEECH

MIN_SPEECH = 0.25  # seconds: less is no speech
_LOCK = threading.Lock()  # the detector remembers what it heard last


@lru_cache(maxsize=1)
def _detector():
    threads = torch.get_num_threads()
    from silero_vad import get_speech_timestamps, load_silero_vad

    torch.set_num_threads(threads)  # importing it sets one thread for the whole process
    return load_silero_vad(), get_speech_timestamps


def speech_part(wave: Waveform, *, limit: float = VOICE_SPEECH, name: str = "input") -> Waveform:
    """The stretches of a 16 kHz mono recording in which somebody speaks, joined, at most `limit` seconds of them.

    Found by Silero VAD. Raises InputError where there are none: silence, noise, music without a voice.
    """
    model, find = _detector()
    peak = float(np.abs(wave.samples).max()) + 1e-9
    level = torch.from_numpy(
        wave.samples * np.float32(0.9 / peak)
    )  # the detector misses whispers of a thousandth of full scale
    with _LOCK, torch.inference_mode(), threads_for():
        model.reset_states()
        stretches = find(level, model, sampling_rate=SAMPLE_RATE)
    pieces = [wave.samples[stretch["start"] : stretch["end"]] for stretch in stretches]
    joined = np.concatenate(pieces)[: int(limit * SAMPLE_RATE)] if pieces else np.zeros(0, np.float32)
    if len(joined) < MIN_SPEECH * SAMPLE_RATE:
        raise InputError(
            f"{name}: no speech found", hint="give a recording in which somebody speaks, or --start and --duration"
        )
    return Waveform(joined, SAMPLE_RATE, wave.notes)
