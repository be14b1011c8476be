"""Every command with its decoder on another device than its inputs: what is on the CPU must be moved, and come back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.bridges.sound import SoundBridge
from mmx.media.audio import Waveform, read_audio
from mmx.media.video import Moment
from mmx.training.video_pairs import score
from tests import tiny, tiny_speech
from tests.conftest import RATE, tone
from tests.small_data import pair_folder
from tests.training_data import two_concepts, two_kinds_of_people

SOUND2IMG = {
    "several": ("-n", 3),
    "sheet": ("-n", 2, "--grid"),
    "image": ("--image", "PHOTO:0.5"),
    "mix": ("--mix", "SEA:0.3"),
    "interpolate": ("--interpolate", "SEA", "--frames", 3),
}


def test_the_stand_in_is_a_device(second_device: str) -> None:
    """It holds values, refuses what is elsewhere, and trains to the weights that the CPU trains to."""

    def trained(device: str) -> torch.Tensor:
        torch.manual_seed(0)
        net, x = torch.nn.Linear(4, 2), torch.randn(8, 4)
        net.to(device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        for _ in range(3):
            net(x.to(device)).square().mean().backward()
            optimizer.step()
        return net.weight.detach().cpu()

    assert torch.equal(trained("cpu"), trained(second_device))
    x = torch.arange(4.0)
    there = x.to(second_device)
    assert str(there.device) == f"{second_device}:0" and torch.equal((there + there).cpu(), x + x)
    for meet in (lambda: there + x, lambda: torch.stack([there, x]), there.numpy, lambda: x[there.long()]):
        with pytest.raises(RuntimeError):
            meet()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def values_of(path: Path) -> np.ndarray:
    """A picture's or a sound's numbers, of 255 and of full scale."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).astype(float) / 255
    return read_audio(path, sample_rate=None).samples


@pytest.fixture
def carried_out(mmx_in_process, second_device: str, tmp_path: Path):
    """A command that must give on the second device what it gives on the CPU, but for rounding."""

    def run(*arguments: object, suffix: str = ".png") -> None:
        found = []
        for device in (second_device, "cpu"):
            folder = tmp_path / device
            folder.mkdir()
            line = (*arguments, "-o", folder / f"out{suffix}", "--device", device, "--dtype", "fp32")
            code, _, err = mmx_in_process(*line)
            assert code == 0, err.decode()
            found.append({path.name: values_of(path) for path in folder.glob(f"out*{suffix}")})
        there, here = found
        assert there.keys() == here.keys() and there
        assert all(np.abs(there[name] - here[name]).max() <= 0.01 for name in there)
        for device in (second_device, "cpu"):
            shutil.rmtree(tmp_path / device)

    return run


@pytest.mark.parametrize("kind", SOUND2IMG)
def test_sound2img(carried_out, debug_options, bark: Path, sea: Path, photo: Path, kind: str) -> None:
    names = {"PHOTO:0.5": f"{photo}:0.5", "SEA:0.3": f"{sea}:0.3", "SEA": sea}
    carried_out("sound2img", bark, *(names.get(option, option) for option in SOUND2IMG[kind]), *debug_options)


@pytest.mark.parametrize("rest", [(), ("--average",), ("-n", 2, "--grid")])
def test_voice2face(carried_out, face_options, low: Path, high: Path, rest: tuple) -> None:
    carried_out("voice2face", low, *([high] if rest else []), *rest, *face_options)


def test_text2img(carried_out, debug_options) -> None:
    carried_out("text2img", "a dog", *debug_options)


@pytest.mark.parametrize("rest", [(), ("--beam", 2), ("-n", 2)])
def test_img2speech(carried_out, speech_options, photo: Path, rest: tuple) -> None:
    carried_out("img2speech", photo, *rest, *speech_options, suffix=".wav")


def test_what_goes_through_words(carried_out, speech_models, bark: Path, photo: Path, tmp_path: Path) -> None:
    """Sound by CLAP's tags and a decoder's own text prior; a picture by a captioner and a speaker."""
    kandinsky = "+".join(map(str, tiny.kandinsky(tmp_path / "k")))
    clap, captioner = tiny.clap(tmp_path / "clap"), "+".join(map(str, tiny_speech.captioner(tmp_path / "c")))
    small = ("--steps", 2, "--size", 16)
    carried_out("sound2img", bark, "--bridge", "tags", "--encoder", clap, "--decoder", kandinsky, *small)
    words = ("--bridge", "caption", "--encoder", captioner, "--decoder", speech_models[1])
    carried_out("img2speech", photo, *words, suffix=".wav")


def other_bridge(folder: Path, like: Path, **changes: object) -> Path:
    """A bridge with random weights, and another config than that of `like` in this."""
    torch.manual_seed(0)
    SoundBridge(replace(SoundBridge.load(like).config, **changes)).half().save_pretrained(folder)
    return folder


def test_two_sources(carried_out, debug_models, bark: Path, photo: Path, tmp_path: Path) -> None:
    bridge = other_bridge(tmp_path / "bridge", debug_models[0], sources=["sound", "image"])
    options = ("--bridge", bridge, "--decoder", debug_models[1], "--steps", 2)
    carried_out("sound2img", bark, "--image", photo, *options)


def test_moments_of_a_video_are_scored(debug_models, second_device: str) -> None:
    """As on the CPU."""
    from mmx import load

    frame = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8))
    moment = Moment(0.0, frame, Waveform(tone(1.0), RATE))
    models = {"bridge": str(debug_models[0]), "decoder": str(debug_models[1]), "dtype": "fp32"}
    here, there = (score(load("sound2img", **models, device=device), moment) for device in ("cpu", second_device))
    assert there == pytest.approx(here, abs=1e-4)


@pytest.mark.parametrize("kind", ["pairs", "sound2img", "voice2face"])
def test_eval(mmx_in_process, second_device: str, debug_models, face_models, tmp_path: Path, kind: str) -> None:
    """Of pairs without labels, and of labelled sounds and voices with a judge."""
    (tmp_path / "data").mkdir()
    make = {"pairs": partial(pair_folder, count=24), "sound2img": two_concepts, "voice2face": two_kinds_of_people}[kind]
    task, (bridge, decoder) = ("voice2face", face_models) if kind == "voice2face" else ("sound2img", debug_models)
    if kind == "sound2img":
        bridge = other_bridge(
            tmp_path / "bridge", bridge, labels={"dog": "a photo of a dog", "cat": "a photo of a cat"}
        )
    more = ("--split", "train") if kind == "pairs" else ("--judge-steps", 1)
    command = ("eval", task, "--data", make(tmp_path / "data"), "-o", tmp_path / "report", "--limit", 4, *more)
    code, _, err = mmx_in_process(*command, "--bridge", bridge, "--decoder", decoder, "--device", second_device)
    assert code == 0, err.decode()


def test_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs without instructions for it, mixed precision is many times slower than float32, so it is left out."""
    from mmx import device

    for pays, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda pays=pays: pays)
        with device.autocast("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        with device.autocast("cpu", False):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert device.bf16_pays("cuda:1")
