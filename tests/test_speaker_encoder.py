"""The speaker encoder that others trained: the loader against the package's own model where it is installed, its
stretches against known answers, and what it teaches and tells.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmx.errors import ModelError
from mmx.evaluation.voice_likeness import voice_likeness
from mmx.media.audio import Waveform, read_audio
from mmx.training.bridges.voice import VoiceBridgeTask
from mmx.training.teachers import ge2e
from mmx.training.teachers.ge2e import FRAMES, MELS, QUIET, WIDTH, SpeakerEncoder, load_speaker_encoder, stretches
from tests.conftest import training
from tests.test_train_bridge import manifest


def _voice(seconds: float, pitch: float = 120.0) -> np.ndarray:
    """A buzz whose loudness comes and goes."""
    time = np.arange(int(16000 * seconds)) / 16000
    wave = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20))
    return (0.02 * wave * (1.2 + np.sin(7 * time))).astype(np.float32)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpeakerEncoder:
    """A package with random weights, as the real one stores them."""
    torch.manual_seed(0)
    net = SpeakerEncoder()
    folder = tmp_path / "some_speaker_encoder"
    folder.mkdir()
    (folder / "__init__.py").touch()
    beside = {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    torch.save({"model_state": net.state_dict() | beside, "step": 1}, folder / "pretrained.pt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ge2e, "PACKAGE", folder.name)
    load_speaker_encoder.cache_clear()
    yield net
    load_speaker_encoder.cache_clear()


@pytest.mark.parametrize(("seconds", "count"), [(0.5, 1), (1.6, 1), (1.9, 1), (2.0, 2), (2.4, 2), (12.5, 15)])
def test_stretches_are_as_long_and_as_many_as_the_papers(seconds: float, count: int) -> None:
    """Known answers: 1.6 s every 0.77 s, and a last one of which three quarters are sound."""
    found = stretches(_voice(seconds))
    assert found.shape == (count, FRAMES, MELS)
    assert found[-1].isfinite().all() and found[-1, : FRAMES // 2].sum() > 0


def test_quiet_voices_are_brought_to_one_level_and_loud_ones_stay() -> None:
    voice = _voice(2.0)
    loud = voice / np.sqrt(np.mean(voice**2)) * QUIET * 4
    torch.testing.assert_close(stretches(0.01 * voice), stretches(0.3 * voice), rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(stretches(2 * loud), 4 * stretches(loud), rtol=1e-3, atol=1e-8)


def test_the_packages_weights_are_taken(installed: SpeakerEncoder) -> None:
    net, wave = load_speaker_encoder(), Waveform(_voice(2.5), 16000)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    found = net.embed(wave)
    assert found.shape == (WIDTH,) and (found >= 0).all()
    with torch.no_grad():  # frame by frame, as it is written down
        total = torch.zeros(WIDTH)
        for stretch in stretches(wave.samples):
            state = None
            for frame in stretch:
                out, state = installed.lstm(frame[None, None], state)
            total += F.normalize(F.relu(installed.linear(out[0, -1])), dim=0)
    torch.testing.assert_close(found, F.normalize(total, dim=0), rtol=1e-4, atol=1e-5)


def test_against_the_packages_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own loudness too; what it cuts out of silences is not part of the network."""
    pytest.importorskip("resemblyzer.hparams" if _importable(monkeypatch) else "no_resemblyzer")
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import normalize_volume

    load_speaker_encoder.cache_clear()
    theirs, voice = VoiceEncoder("cpu", verbose=False), _voice(4.0, 210)
    wanted = theirs.embed_utterance(normalize_volume(voice, -30, increase_only=True))
    own = load_speaker_encoder().embed(Waveform(voice, 16000))
    torch.testing.assert_close(own, torch.from_numpy(wanted), rtol=1e-3, atol=1e-4)


def _importable(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the package is there, whose imports for silences and of a module that scipy gave up are stood in for."""
    import scipy.ndimage

    moved = ModuleType("scipy.ndimage.morphology")
    moved.binary_dilation = scipy.ndimage.binary_dilation
    monkeypatch.setitem(sys.modules, "scipy.ndimage.morphology", moved)
    monkeypatch.setitem(sys.modules, "webrtcvad", ModuleType("webrtcvad"))
    return ge2e.is_installed()


def test_without_the_package_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ge2e, "PACKAGE", "no_such_package")
    load_speaker_encoder.cache_clear()
    with pytest.raises(ModelError) as raised:
        load_speaker_encoder()
    assert not ge2e.is_installed() and "pip install" in raised.value.hint


def test_a_bridge_learns_what_the_teacher_hears(
    mmx_in_process, installed: SpeakerEncoder, face_models, tmp_path: Path, low: Path, high: Path, monkeypatch
) -> None:
    """In each voice its own, by a map that is not kept; without a teacher the weights are others."""
    data, decoder, tasks = manifest(tmp_path / "data", "voice2face", low, high), face_models[1], []
    begin = VoiceBridgeTask.__init__
    monkeypatch.setattr(VoiceBridgeTask, "__init__", lambda self, *given: (begin(self, *given), tasks.append(self))[0])

    def trained(name: str, *options: object) -> dict[str, torch.Tensor]:
        command = training("voice2face", data, tmp_path / name, decoder, "--prior-steps", 0, *options)
        code, _, err = mmx_in_process(*command)
        assert code == 0, err.decode()
        return load_file(tmp_path / name / "model.safetensors")

    taught, alone = trained("taught", "--teacher", "ge2e"), trained("alone")
    last = "encoder.head.4.weight"
    assert taught.keys() == alone.keys() and not torch.equal(taught[last], alone[last])
    assert tasks[1].prints is None and len(tasks[0].prints) == 8  # two of ten are val's
    own = torch.stack([installed.embed(read_audio(path, sample_rate=16000)) for path in (low, high)])
    apart = own[0] - own[1]
    both = F.normalize(tasks[0].prints, dim=1) @ F.normalize(apart, dim=0)
    torch.testing.assert_close(both.abs(), torch.ones(8), rtol=0, atol=0.02)  # float16, and a mean of two voices
    told = tasks[0].module.told
    with torch.no_grad():
        told.weight.zero_()
        told.bias.copy_(tasks[0].prints[0])
    like = (both * both[0] > 0).nonzero()[:, 0]
    unlike = (both * both[0] < 0).nonzero()[:, 0]
    for voices, wanted in ((like, 0.0), (unlike, 2.0)):
        heard = torch.zeros(2 * len(voices), told.in_features)
        assert tasks[0]._apart(heard, voices).item() == pytest.approx(wanted, abs=0.02)
    command = training("voice2face", data, tmp_path / "other", decoder, "--teacher", "ge2e")
    for wrong in (("--architecture", "transformer"), ("--teacher", "gee")):
        code, _, err = mmx_in_process(*command, *wrong)
        assert code == 2 and b"--teacher" in err, err.decode()


def test_likeness_is_one_of_what_the_encoder_says_itself(installed: SpeakerEncoder) -> None:
    """And nothing of points at random; of one gender only its own pairs count."""
    voices = [Waveform(np.tile(_voice(2.0, 90 + 15 * k), 2), 16000) for k in range(12)]
    truth = torch.arange(12) // 6
    own = torch.stack([load_speaker_encoder().embed(voice) for voice in voices])
    points = F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    rows = voice_likeness(load_speaker_encoder(), voices, {"itself": own, "noise": points}, truth)
    assert rows["itself"] == {"all": pytest.approx(1), "one_gender": pytest.approx(1)}
    assert abs(rows["noise"]["all"]) < 0.35 and rows["oracle: halves of the voices"]["all"] > 0.99
    assert rows["random: another voice's"]["all"] < 0.9
