"""Full-size speech decoders on tiny checkpoints of their formats, and img2speech by way of a captioner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image, ImageOps

from mmx.decoders.speech import SpeechDecoder, polished
from mmx.decoders.unit_vocoder import UnitVocoder
from mmx.errors import ModelError, UsageError
from mmx.media.audio import Waveform
from mmx.models.store import Located, locate
from mmx.nets.speech import collapse
from tests import tiny_speech
from tests.conftest import tone, training

FAMILIES = ("seamless", "unit_hifigan")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The --decoder of each family."""
    folder = tmp_path_factory.mktemp("speech")
    encoder = tiny_speech.hubert(folder / "hubert")
    return {name: f"{getattr(tiny_speech, name)(folder / name)}+{encoder}" for name in FAMILIES}


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> str:
    return "+".join(map(str, tiny_speech.captioner(tmp_path_factory.mktemp("captioner"))))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def open_(name: str) -> UnitVocoder:
    return UnitVocoder.load(locate(name, "img2speech", "decoder"))


@torch.no_grad()
def test_units_are_the_nearest_centroids_of_the_librarys_states(models: dict[str, str]) -> None:
    from safetensors.torch import load_file
    from transformers import HubertModel

    folder = Path(models["unit_hifigan"].split("+")[1])
    wave = tone(1.0, 300.0) + 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    units = open_(models["unit_hifigan"]).targets([Waveform(wave, 16_000)])[0]
    normal = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[None].float()
    states = HubertModel.from_pretrained(folder).eval()(normal, output_hidden_states=True).hidden_states[1][0]
    centroids = load_file(folder / "kmeans.safetensors")["centroids"]
    naive = ((states[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
    assert len(units.unique()) > 3 and (units == naive).float().mean() > 0.98


@torch.no_grad()
@pytest.mark.parametrize("shards", [True, False])
def test_seamless_speaks_as_its_own_class(tmp_path: Path, shards: bool) -> None:
    from transformers import SeamlessM4Tv2Model

    folder = tiny_speech.seamless(tmp_path / "seamless", shards)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == shards
    decoder = open_(str(folder))
    units = torch.tensor([3, 3, 7, 7, 7, 2, 9, 9])
    ours = decoder.decode([units], voice="4")[0]
    vocoder = SeamlessM4Tv2Model.from_pretrained(folder).eval().vocoder
    theirs = vocoder(collapse(units)[0][None], torch.tensor([[4]]), torch.tensor([[2]]))[0].reshape(-1).numpy()
    assert np.allclose(ours.samples, polished(theirs), atol=1e-4)
    assert decoder.spec.shape == (tiny_speech.UNITS,) and len(decoder.voices) == 5
    with pytest.raises(UsageError, match="durations itself"):
        decoder.decode([units], speed=2.0)
    with pytest.raises(UsageError, match="no such voice"):
        decoder.decode([units], voice="5")
    with pytest.raises(ModelError, match="what its units are"):
        decoder.targets([Waveform(tone(), 16_000)])


@torch.no_grad()
def test_a_unit_hifigan_is_the_network_by_hand(models: dict[str, str]) -> None:
    """Convolutions called one by one from the file's tensors, weight normalisation undone by torch itself."""
    from safetensors.torch import load_file
    from torch.nn import functional as F

    folder = Path(models["unit_hifigan"].split("+")[0])
    tensors = load_file(folder / "model.safetensors")

    def layer(x: torch.Tensor, name: str, call, **options) -> torch.Tensor:
        weight = torch._weight_norm(tensors[f"{name}.conv.weight_v"], tensors[f"{name}.conv.weight_g"], 0)
        return call(x, weight, tensors[f"{name}.conv.bias"], **options)

    units = torch.tensor([3, 3, 7, 2, 9])
    x = layer(tensors["unit_embedding.weight"][units].T[None], "conv_pre", F.conv1d, padding=3)
    for number, (rate, kernel) in enumerate(((5, 11), (8, 16), (8, 16))):
        x = layer(F.leaky_relu(x, 0.1), f"ups.{number}", F.conv_transpose1d, stride=rate, padding=(kernel - rate) // 2)
        y = layer(F.leaky_relu(x, 0.1), f"resblocks.{number}.convs1.0", F.conv1d, padding=1)
        x = x + layer(F.leaky_relu(y, 0.1), f"resblocks.{number}.convs2.0", F.conv1d, padding=1)
    theirs = torch.tanh(layer(F.leaky_relu(x), "conv_post", F.conv1d, padding=3)).reshape(-1).numpy()
    decoder = open_(models["unit_hifigan"])
    assert np.allclose(decoder.decode([units])[0].samples, polished(theirs), atol=1e-4)
    fast, slow = (decoder.decode([units.repeat(4)], speed=speed)[0] for speed in (2.0, 0.5))
    assert len(fast.samples) * 4 == pytest.approx(len(slow.samples), rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_item_does_not_depend_on_its_batch(models: dict[str, str], family: str) -> None:
    decoder = open_(models[family])
    units = [torch.randint(tiny_speech.UNITS, (n,), generator=torch.Generator().manual_seed(n)) for n in (5, 9)]
    together = decoder.decode(units)
    for one, wave in zip(units, together, strict=True):
        assert np.array_equal(decoder.decode([one])[0].samples, wave.samples)
    assert not any(p.requires_grad for p in decoder.vocoder.parameters())


def test_what_does_not_fit_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    vocoder, encoder = models["unit_hifigan"].split("+")
    other = tiny_speech.hubert(tmp_path / "other", units=7)
    with pytest.raises(ModelError, match="speaks 20 units, and the encoder beside it knows 7"):
        open_(f"{vocoder}+{other}")
    (other / "kmeans.safetensors").unlink()
    with pytest.raises(ModelError, match="no kmeans"):
        open_(f"{vocoder}+{other}")
    with pytest.raises(ModelError, match="is a hubert"):
        open_(encoder)
    broken = tiny_speech.unit_hifigan(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ModelError, match="can't be loaded"):
        open_(str(broken))


@pytest.mark.parametrize("make", [tiny_speech.clip, tiny_speech.dinov2])
def test_an_image_bridge_looks_with_a_pretrained_encoder(
    mmx_in_process, speech_models, debug_models, tmp_path: Path, photo: Path, make
) -> None:
    """Trained on the last layer that the library gives, used, and refused for another encoder."""
    from transformers import AutoImageProcessor, AutoModel

    from mmx.bridges.image_encoders import open_image_encoder
    from tests.small_data import pair_folder

    encoder, picture = make(tmp_path / "encoder"), Image.open(photo).convert("RGB")
    looking = open_image_encoder(Located("encoder", encoder))
    model = AutoModel.from_pretrained(encoder).eval()
    inputs = AutoImageProcessor.from_pretrained(encoder)(
        images=[picture, ImageOps.mirror(picture)], return_tensors="pt"
    )
    with torch.no_grad():
        own = getattr(model, "vision_model", model)(**inputs).last_hidden_state
    assert own.shape == (2, 5, 8) and torch.allclose(looking.both_ways(picture), own, atol=1e-5)
    data, run = pair_folder(tmp_path / "pairs", 24), tmp_path / "run"
    command = training("img2speech", data, run, speech_models[1], "--encoder", encoder)
    code, _, err = mmx_in_process(*command)
    assert code == 0, err.decode()
    options = ("--bridge", run, "--decoder", speech_models[1], "--encoder")
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "a.wav", *options, encoder)
    assert code == 0 and len(soundfile.read(tmp_path / "a.wav")[0]), err.decode()
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "b.wav", *options, debug_models[1])
    assert code == 4 and b"was trained with the encoder" in err
    deaf = tiny_speech.hubert(tmp_path / "hubert")
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "b.wav", *options, deaf)
    assert code == 4 and b"is a hubert model" in err


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_bridge_is_trained_and_used(
    mmx_in_process, models: dict[str, str], debug_models, tmp_path: Path, photo: Path, family: str
) -> None:
    from tests.small_data import pair_folder

    data, run, decoder = pair_folder(tmp_path / "pairs", 24), tmp_path / "run", models[family]
    command = training("img2speech", data, run, decoder, "--encoder", debug_models[1])
    code, _, err = mmx_in_process(*command)
    assert code == 0, err.decode()
    assert json.loads((run / "config.json").read_text())["spec"]["shape"] == [tiny_speech.UNITS]
    assert soundfile.info(run / "bridge" / "preview.wav").samplerate == 16_000
    options = ("--bridge", run, "--encoder", debug_models[1])
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "a.wav", *options, "--decoder", decoder)
    assert code == 0, err.decode()
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 16_000 and len(samples) and np.abs(samples).max() < 1
    alone = decoder.split("+")[0]  # the same vocoder, but what its units are is another question
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "b.wav", *options, "--decoder", alone)
    assert code == 4 and b"was trained for" in err


@torch.no_grad()
def test_another_vocoder_beside_our_units(mmx_in_process, speech_models, tmp_path: Path, photo: Path) -> None:
    """transformers' SpeechT5HifiGan as a companion: the same units and mels, its waveform."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(0)
    sizes = {"upsample_initial_channel": 16, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**sizes)).eval()
    vocoder.save_pretrained(tmp_path / "hifigan")
    decoder = SpeechDecoder.load(locate(f"{speech_models[1]}+{tmp_path / 'hifigan'}", "img2speech", "decoder"))
    units = torch.arange(12)
    theirs = vocoder(decoder.mel(units)[None]).reshape(-1).numpy()
    assert np.allclose(decoder.decode([units])[0].samples, polished(theirs), atol=1e-4)
    options = ("--bridge", speech_models[0], "--encoder", speech_models[2])
    for name, at in (("a", f"{speech_models[1]}+{tmp_path / 'hifigan'}"), ("b", speech_models[1])):
        code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / f"{name}.wav", *options, "--decoder", at)
        assert code == 0, err.decode()
    a, b = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in "ab")
    assert len(a) == len(b) and not np.allclose(a, b, atol=1e-3)


def test_a_caption_is_said_and_said_again(
    mmx_in_process, captioner: str, speech_models, tmp_path: Path, photo: Path
) -> None:
    options = ("--bridge", "caption", "--encoder", captioner, "--decoder", speech_models[1])
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "a.wav", *options, "-n", "2")
    assert code == 0, err.decode()
    assert b"goes through words" in err
    for number in (0, 1):
        assert mmx_in_process("reproduce", tmp_path / f"a-{number}.wav", photo, *options)[0] == 0
    one, two = (soundfile.read(tmp_path / f"a-{number}.wav")[0] for number in (0, 1))
    assert not np.array_equal(one, two)  # the second caption is drawn
    alone = ("--bridge", "caption", "--encoder", captioner.split("+")[0], "--decoder", speech_models[1])
    code, _, err = mmx_in_process("img2speech", photo, "-o", tmp_path / "b.wav", *alone)
    assert code == 4 and b"something must read it out" in err


def test_the_caption_is_the_librarys(captioner: str, speech_models, photo: Path) -> None:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    from mmx.bridges.words_caption import CaptionBridge
    from mmx.nets.writer import Sampling

    folder = captioner.split("+")[0]
    bridge = CaptionBridge.load(locate(captioner, "img2speech", "encoder"), SpeechDecoder.load(speech_models[1]))
    picture = Image.open(photo).convert("RGB")
    text, share = bridge.caption(bridge.prepare(picture), Sampling(), torch.Generator().manual_seed(0))
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    inputs = processor(images=picture, return_tensors="pt")
    theirs = model.generate(**inputs, max_new_tokens=30, do_sample=False)
    assert text == processor.decode(theirs[0], skip_special_tokens=True).strip() and 0 < share <= 1
    state = torch.get_rng_state()
    bridge.speak("a dog", torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())  # the library draws from a fork
