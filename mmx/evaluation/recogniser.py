"""A recogniser that only judges: it hears speech, and no training ever asks it.

PocketSphinx, with its own English model.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from mmx.errors import ModelError
from mmx.media.audio import Waveform, resample
from mmx.media.formats import SAMPLE_RATE

PAUSE = 0.25  # seconds of quiet put before and after, as the model is used to
# flite's names of phones that the recogniser's dictionary calls otherwise
PHONES = {"ax": "AH", "axr": "ER", "pau": ""}


class Ear:
    """Hears one of the sentences that it was told, or, with none, whatever it makes out (its language model is poor).

    sentences: lower-case words. Raises ModelError for a word that neither its dictionary nor flite can say.
    """

    def __init__(self, sentences: Sequence[str] = ()) -> None:
        from pocketsphinx import Decoder

        if not sentences:
            self.decoder = Decoder(loglevel="FATAL", samprate=SAMPLE_RATE)
            return
        self.decoder = Decoder(loglevel="FATAL", samprate=SAMPLE_RATE, lm=None, bestpath=False)
        for word in sorted({word for sentence in sentences for word in sentence.split()}):
            if self.decoder.lookup_word(word) is None:
                self.decoder.add_word(word, spelled(word), True)
        choices = " | ".join(sorted(set(sentences)))
        self.decoder.add_jsgf_string("closed", f"#JSGF V1.0; grammar closed; public <s> = {choices};")
        self.decoder.activate_search("closed")

    def __call__(self, wave: Waveform) -> str:
        """What it hears; "" for nothing."""
        samples = resample(wave.samples, wave.sample_rate, SAMPLE_RATE)
        quiet = np.zeros(int(PAUSE * SAMPLE_RATE), np.float32)
        samples = np.concatenate((quiet, samples, quiet))
        self.decoder.start_utt()
        self.decoder.process_raw((samples.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return found.hypstr if found else ""


def spelled(word: str) -> str:
    """A word's phones as flite says it, in the recogniser's names."""
    if shutil.which("flite") is None:
        raise ModelError(f"the recogniser does not know the word {word}", hint="apt-get install flite: it can spell it")
    done = subprocess.run(["flite", "-t", word, "-ps", "none"], capture_output=True, text=True, check=True)
    phones = (PHONES.get(phone, phone.upper()) for phone in done.stdout.split())
    return " ".join(phone for phone in phones if phone)


class NameEar:
    """Hears which of some names is spoken, alone or inside the templates that it was told."""

    def __init__(self, names: Sequence[str], templates: Sequence[str]) -> None:
        self.names, self.templates = list(names), list(templates)

    @cached_property
    def _by_sentence(self) -> dict[str, str]:
        return {template.format(name): name for template in self.templates for name in self.names}

    @cached_property
    def _ear(self) -> Ear:
        return Ear(list(self._by_sentence))

    def sentence(self, wave: Waveform) -> str:
        """The whole sentence; "" for nothing."""
        return self._ear(wave)

    def __call__(self, wave: Waveform) -> str | None:
        """The name that is heard, or None."""
        return self._by_sentence.get(self.sentence(wave))
