"""Real files through the commands: what reading them found is said, and no input ends a batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmx.errors import ModelError
from mmx.faults import unexpected
from mmx.media.audio import Waveform
from mmx.media.voice_activity import speech_part
from tests.conftest import RATE
from tests.sounds import encoded, rising


def test_notes_of_inputs_and_of_what_is_blended_in_reach_the_user(
    mmx_in_process, debug_options, tmp_path: Path
) -> None:
    whole = encoded(rising(), RATE)
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "telephone.wav").write_bytes(encoded(rising(2, 8_000), 8_000))
    deep = np.linspace(0, 4095, 64).astype(np.uint16)[None].repeat(64, 0)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    given = (tmp_path / "cut.wav", "--mix", f"{tmp_path / 'telephone.wav'}:0.3", "--image", tmp_path / "deep.png")
    code, out, err = mmx_in_process("sound2img", *given, "-o", tmp_path / "a.png", "--json", *debug_options)
    assert code == 0, err.decode()
    notes = json.loads(out)["notes"]
    for name, what in (("cut.wav", "cut short"), ("telephone.wav", "8000 Hz"), ("deep.png", "12 bits")):
        assert any(name in note and what in note for note in notes), notes
    assert "cut short" in err.decode()


def test_a_bug_with_one_input_does_not_end_the_batch(
    mmx_in_process, debug_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmx.translate.sound2img import SoundTranslator

    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").write_bytes(encoded(rising(1), RATE))
    notes = SoundTranslator.notes

    def broken(self: SoundTranslator, name: str, sound: Waveform) -> list[str]:
        if name.endswith("b.wav"):
            raise ZeroDivisionError("a bug of ours")
        return notes(self, name, sound)

    monkeypatch.setattr(SoundTranslator, "notes", broken)
    code, _, err = mmx_in_process("sound2img", tmp_path, "-o", tmp_path / "out", *debug_options)
    assert code == 6 and sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png"]
    assert "b.wav: this is a bug: ZeroDivisionError" in err.decode()


def test_memory_is_no_bug() -> None:
    assert isinstance(unexpected(MemoryError()), ModelError) and unexpected(KeyError("k"), "x").message.startswith(
        "x: "
    )


def test_the_speech_of_a_recording_keeps_its_notes(low: Path) -> None:
    from mmx.media.audio import read_audio

    wave = read_audio(low, sample_rate=RATE)
    assert speech_part(Waveform(wave.samples, RATE, ("cut short",))).notes == ("cut short",)
