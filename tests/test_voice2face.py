"""A voice in, a face out: what is refused, what is said, what the artifact carries."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.errors import InputError
from mmx.media.audio import Waveform, read_audio, resample, wav_bytes
from mmx.media.voice_activity import speech_part
from tests.conftest import RATE


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.write_bytes(wav_bytes(Waveform(samples.astype(np.float32), rate)))
    return path


@pytest.fixture
def voice(low: Path) -> np.ndarray:
    return read_audio(low, sample_rate=RATE).samples


def test_speech_is_found_where_it_is(voice: np.ndarray) -> None:
    """Three seconds of noise, then a voice: nearly all of the voice is kept and nearly none of the noise."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(3 * RATE)
    found = speech_part(Waveform(np.concatenate([noise, voice]).astype(np.float32), RATE))
    alone = speech_part(Waveform(voice, RATE))
    assert abs(found.seconds - alone.seconds) < 0.5
    assert speech_part(Waveform(np.tile(voice, 5), RATE), limit=10.0).seconds == pytest.approx(10.0, abs=0.01)
    assert speech_part(Waveform(voice * 0.002, RATE)).seconds > 0.8 * alone.seconds  # a whisper in level


def test_finding_speech_leaves_the_threads_alone(voice: np.ndarray) -> None:
    torch.set_num_threads(2)
    speech_part(Waveform(voice, RATE))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("kind", ["silence", "noise", "chord", "sea"])
def test_no_speech_is_one_clear_message(mmx_in_process, face_options, tmp_path: Path, sea: Path, kind: str) -> None:
    t = np.arange(4 * RATE) / RATE
    samples = {
        "silence": np.zeros(len(t)),
        "noise": 0.2 * np.random.default_rng(1).standard_normal(len(t)),
        "chord": 0.2 * sum(np.sin(2 * np.pi * f * t) for f in (261.6, 329.6, 392.0)),
    }
    path = sea if kind == "sea" else write(tmp_path / "x.wav", samples[kind])
    code, _, err = mmx_in_process("voice2face", path, "-o", tmp_path / "face.png", *face_options)
    assert code == 3 and b"no speech found" in err and b"Traceback" not in err
    assert not (tmp_path / "face.png").exists()


def variant(voice: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
    if kind == "telephone":
        return resample(voice, RATE, 8000), 8000
    if kind == "clipped":
        return np.clip(voice * 20, -1, 1), RATE
    if kind == "studio":
        return np.stack([resample(voice, RATE, 48_000)] * 2, axis=1), 48_000
    return {
        "two seconds": voice[: 2 * RATE],
        "noisy": voice + 0.02 * np.random.default_rng(0).standard_normal(len(voice)),
    }[kind], RATE


@pytest.mark.parametrize("kind", ["telephone", "clipped", "studio", "two seconds", "noisy"])
def test_every_recording_of_a_voice_gives_a_face(
    mmx_in_process, face_options, tmp_path: Path, voice: np.ndarray, kind: str
) -> None:
    import soundfile

    samples, rate = variant(voice, kind)
    soundfile.write(tmp_path / "v.wav", samples, rate)
    code, _, err = mmx_in_process("voice2face", tmp_path / "v.wav", "-o", tmp_path / "face.png", *face_options)
    assert code == 0, err.decode()
    assert Image.open(tmp_path / "face.png").size == (96, 96)


def test_the_notice_is_said_once_and_always_carried(
    mmx_in_process, face_options, tmp_path: Path, low: Path, high: Path
) -> None:
    code, _, err = mmx_in_process("voice2face", low, high, "-o", tmp_path / "a", *face_options)
    assert code == 0 and err.count(b"not the speaker") == 1 and err.count(b"the voice suggests: ") == 2
    code, _, err = mmx_in_process("voice2face", low, "-o", tmp_path / "b.png", "--quiet", *face_options)
    assert code == 0 and err == b""
    image = Image.open(tmp_path / "b.png")
    assert "not the speaker" in image.info["Comment"] and "identifies nobody" in json.loads(image.info["mmx"])["notice"]
    assert mmx_in_process("reproduce", tmp_path / "b.png", low, *face_options[:4])[0] == 0


def test_averaging_is_in_feature_space(
    mmx_in_process, face_options, face_models, tmp_path: Path, low: Path, high: Path
) -> None:
    """One result of two inputs, in any order, and the naive twin's feature."""
    from mmx import load

    for name, order in (("ab", (low, high)), ("ba", (high, low))):
        arguments = ("voice2face", *order, "--average", "-o", tmp_path / f"{name}.png", *face_options)
        assert mmx_in_process(*arguments)[0] == 0
    pixels = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("ab", "ba")]
    np.testing.assert_array_equal(*pixels)
    translator = load("voice2face", bridge=str(face_models[0]), decoder=str(face_models[1]))
    points = [translator.point(translator.read(path)) for path in (low, high)]
    mean = torch.nn.functional.normalize(sum(points) / 2, dim=-1)
    raw, generator = translator.conditioning(mean, 0, 0)
    twin = translator.decoder.decode(raw[None], generators=[generator], steps=2)[0]
    np.testing.assert_array_equal(np.asarray(twin), pixels[0])
    assert mmx_in_process("voice2face", low, high, "--average", "-o", tmp_path / "d", *face_options)[0] == 2


def test_num_and_grid(mmx_in_process, face_options, tmp_path: Path, low: Path) -> None:
    assert mmx_in_process("voice2face", low, "-n", 3, "-o", tmp_path / "f.png", *face_options)[0] == 0
    singles = [np.asarray(Image.open(tmp_path / f"f-{k}.png")) for k in range(3)]
    assert not np.array_equal(singles[0], singles[1])
    assert mmx_in_process("voice2face", low, "-n", 3, "--grid", "-o", tmp_path / "g.png", *face_options)[0] == 0
    sheet = np.asarray(Image.open(tmp_path / "g.png"))
    assert sheet.shape[0] >= 96 and sheet.shape[1] >= 2 * 96
    data = (tmp_path / "g.png").read_bytes()
    assert Image.open(io.BytesIO(data)).info["mmx"]


def test_a_voice_without_speech_in_memory_is_an_input_error(face_models) -> None:
    from mmx import load

    translator = load("voice2face", bridge=str(face_models[0]), decoder=str(face_models[1]))
    with pytest.raises(InputError, match="no speech"):
        translator((np.zeros(RATE, np.float32), RATE))


def test_the_starter_takes_the_pitch_of_a_voice_for_what_its_labels_say(
    mmx_in_process, tmp_path: Path, low: Path, high: Path
) -> None:
    code, out, _ = mmx_in_process("voice2face", low, high, "-o", tmp_path, "--json")
    assert code == 0
    assert [record["heard"][0][0]["label"] for record in map(json.loads, out.splitlines())] == ["male", "female"]
    assert Image.open(tmp_path / "low.png").size == (128, 128)
