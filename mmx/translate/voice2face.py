"""Voices → faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from mmx.bridges.voice import VoiceBridge
from mmx.errors import SilenceError
from mmx.media.audio import Waveform
from mmx.media.formats import VOICE_SPEECH, VOICE_WINDOW
from mmx.media.notes import notes_of
from mmx.media.voice_activity import speech_part
from mmx.translate.base import Excerpt
from mmx.translate.sound2img import SoundTranslator


class VoiceTranslator(SoundTranslator):
    """Turns a voice into faces that such a voice might have."""

    bridge_kind = VoiceBridge
    notice = (
        "The face is a plausible average for such a voice, not the speaker; it identifies nobody. The training labels "
        "are binary and the people in the data skewed. Nothing of the voice is stored."
    )
    libraries = ("silero-vad",)
    window = VOICE_WINDOW  # in which speech is looked for

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Waveform:
        """A path, bytes, a Waveform, or (samples, rate) → the speech in it, 16 kHz mono, up to 10 s. Raises
        InputError."""
        name = name or (str(source) if isinstance(source, str | Path) else "input")
        try:
            wave = super()._read(source, name, excerpt)
        except SilenceError as error:
            raise SilenceError(f"{name}: no speech found: it is digital silence", error.hint) from None
        return speech_part(wave, limit=VOICE_SPEECH, name=name)

    def notes(self, name: str, sound: Waveform) -> list[str]:
        found = [f"{name}: {note}" for note in notes_of(sound)]
        if sound.seconds < 3.0:
            found.append(f"{name}: only {sound.seconds:.1f} s of speech; 3 s and more suggest more")
        return found

    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """What the voice suggests: the data's genders, with probabilities. Nothing, with decoders that name no
        faces."""
        return self.decoder.teacher.suggest(point * self.decoder.spec.mean_norm)[:top]
