"""What goes through words: text2img, and sound2img by tags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.bridges.words_tags import PROMPT, TagsBridge
from mmx.errors import ModelError
from mmx.media.audio import Waveform
from mmx.models.store import Located
from tests import tiny
from tests.conftest import RATE, tone


@pytest.fixture(scope="module")
def kandinsky(tmp_path_factory: pytest.TempPathFactory) -> str:
    return "+".join(map(str, tiny.kandinsky(tmp_path_factory.mktemp("kandinsky"))))


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.clap(tmp_path_factory.mktemp("clap"))


def test_a_text_is_drawn_kept_and_drawn_again(mmx_in_process, debug_options, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 1, 2):
        name = f"{len(list(tmp_path.iterdir()))}.png"
        code, _, err = mmx_in_process("text2img", "a dog", "-o", name, "--seed", seed, *debug_options)
        assert code == 0, err.decode()
    pixels = [Image.open(f"{k}.png").tobytes() for k in range(3)]
    assert pixels[0] == pixels[1] != pixels[2]
    code, out, _ = mmx_in_process("inspect", "0.png", "--json")
    assert json.loads(out)["inputs"][0]["text"] == "a dog"
    assert mmx_in_process("reproduce", "0.png", *debug_options[:4])[0] == 0
    code, _, _ = mmx_in_process("text2img", "a dog", "a very red bird!", "-o", "many", "-n", "2", *debug_options)
    found = sorted(path.name for path in Path("many").iterdir())
    assert code == 0 and found == ["a-dog-0.png", "a-dog-1.png", "a-very-red-bird-0.png", "a-very-red-bird-1.png"]
    Path("words.txt").write_text("a dog\n")
    assert mmx_in_process("text2img", "words.txt", "-o", "file.png", "--seed", "1", *debug_options)[0] == 0
    assert Image.open("file.png").tobytes() == pixels[0]
    for text, code, message in (
        (" ", 3, b"no text"),
        ("x" * 2000, 3, b"2000 characters"),
        ("none.txt", 2, b"no such file"),
    ):
        got, _, err = mmx_in_process("text2img", text, "-o", "no.png", *debug_options)
        assert got == code and message in err and not Path("no.png").exists()


@torch.no_grad()
def test_kandinskys_own_prior_draws_what_the_library_draws(mmx_in_process, kandinsky: str, tmp_path: Path) -> None:
    import diffusers

    from mmx.decoders.pretrained import HubDecoder
    from mmx.models.store import locate

    decoder = HubDecoder.load(locate(kandinsky, "sound2img", "decoder"))
    ours = decoder.prompt("a photo of a dog", torch.Generator().manual_seed(3))
    prior = diffusers.KandinskyV22PriorPipeline.from_pretrained(kandinsky.split("+")[1])
    prior.set_progress_bar_config(disable=True)
    theirs = prior("a photo of a dog", generator=torch.Generator().manual_seed(3)).image_embeds[0]
    assert torch.allclose(ours, theirs, atol=1e-4)
    other = decoder.prompt("a photo of a cat", torch.Generator().manual_seed(3))
    assert not torch.allclose(ours, other, atol=1e-4)
    code, _, err = mmx_in_process(
        "text2img", "a dog", "-o", tmp_path / "a.png", "--decoder", kandinsky, "--steps", 2, "--size", 16
    )
    assert code == 0, err.decode()
    assert Image.open(tmp_path / "a.png").size == (16, 16)


def test_a_decoder_without_a_prior_says_so(mmx_in_process, tmp_path: Path) -> None:
    decoder = "+".join(map(str, tiny.sd(tmp_path)))
    code, _, err = mmx_in_process("text2img", "a dog", "-o", tmp_path / "a.png", "--decoder", decoder)
    assert code == 4 and b"no prior" in err


def test_tags_are_clap_zero_shot(clap: Path) -> None:
    """Probabilities beside the library's own: cosine of its two outputs, at its own temperature."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    from mmx.bridges.audio_encoders import Listener

    tags = ("a dog", "a cat", "a photo")
    wave = Waveform(tone(1.0, 500.0), RATE)
    bridge = TagsBridge(Listener.load(Located("clap", clap)), None, tags)
    model, tokenizer = ClapModel.from_pretrained(clap).eval(), AutoTokenizer.from_pretrained(clap)
    inputs = tokenizer([PROMPT.format(tag) for tag in tags], padding=True, return_tensors="pt")
    sound = ClapFeatureExtractor.from_pretrained(clap)(wave.samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**inputs, **sound).logits_per_audio[0].softmax(0)
    assert torch.allclose(bridge.shares(bridge.point(wave)), theirs, atol=1e-5)


def test_sounds_are_shown_by_their_tags(mmx_in_process, clap: Path, kandinsky: str, bark: Path, tmp_path: Path) -> None:
    options = ("--bridge", "tags", "--encoder", clap, "--decoder", kandinsky)
    small = ("--steps", 2, "--size", 16)
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *options, *small)
    assert code == 0, err.decode()
    assert b"goes through words" in err and b"heard: " in err
    assert mmx_in_process("reproduce", tmp_path / "a.png", bark, *options)[0] == 0
    code, out, _ = mmx_in_process("inspect", tmp_path / "a.png", "--json")
    record = json.loads(out)
    assert record["bridge"]["name"] == "tags" and "goes through words" in record["notice"]


def test_tags_want_an_encoder_that_reads(mmx_in_process, kandinsky: str, bark: Path, tmp_path: Path) -> None:
    wavlm = tiny.wavlm(tmp_path / "wavlm")
    options = ("--bridge", "tags", "--encoder", wavlm, "--decoder", kandinsky)
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *options)
    assert code == 4 and b"wants a CLAP model" in err


def test_the_second_tag_is_shown_when_it_is_nearly_as_likely(clap: Path) -> None:
    from mmx.bridges.audio_encoders import Listener

    bridge = TagsBridge(Listener.load(Located("clap", clap)), None, ("a dog", "a cat", "a photo"))
    bridge.shares = lambda point: point
    assert bridge.prompt(torch.tensor([0.6, 0.35, 0.05])) == "a photo of a dog and a cat"
    assert bridge.prompt(torch.tensor([0.8, 0.15, 0.05])) == "a photo of a dog"


def test_words_fit_any_decoder_and_trained_bridges_their_own(clap: Path, debug_models, face_models) -> None:
    """What goes through words is made like every translator; what was trained is held against the decoder's spec."""
    from mmx.bridges.audio_encoders import Listener
    from mmx.bridges.base import WordsBridge
    from mmx.bridges.sound import SoundBridge
    from mmx.decoders.unclip import ImageDecoder
    from mmx.translate.sound2img import SoundTranslator

    trained = SoundBridge.load(debug_models[0])
    words = TagsBridge(Listener.load(Located("clap", clap)), None, ("a dog", "a cat"))
    assert isinstance(words, WordsBridge) and not hasattr(words, "spec")
    own, other = (ImageDecoder.load(folder) for folder in (debug_models[1], face_models[1]))
    at = Located("x", clap)
    for bridge, decoder in ((words, own), (words, other), (trained, own)):
        translator = SoundTranslator("sound2img", bridge, decoder, bridge_at=at, decoder_at=at, encoder_at=at)
        assert set(translator.models) == {"bridge", "decoder", "encoder"}
        assert len(translator.hear(bridge.labelled(decoder)[1][1], 2)) == 2
    with pytest.raises(ModelError, match="bridge x was trained for debug/embedding"):
        SoundTranslator("sound2img", trained, other, bridge_at=at, decoder_at=at)


def test_low_memory_and_compile(mmx_in_process, kandinsky: str, tmp_path: Path, monkeypatch) -> None:
    """Compiled by a backend that changes nothing, the picture is the same; and it was asked to compile."""
    asked = []
    whole = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: (asked.append(type(self).__name__), whole(self, backend="eager"))
    )
    for name, options in (("a", ()), ("b", ("--compile",)), ("c", ("--low-memory",))):
        command = ("text2img", "a dog", "-o", tmp_path / f"{name}.png", "--decoder", kandinsky, "--steps", 2)
        code, _, err = mmx_in_process(*command, "--size", 16, *options)
        assert code == 0, err.decode()
        assert b"cpu fp32: no GPU is here; exact on CPUs" in err or torch.cuda.is_available()
    assert asked == ["UNet2DConditionModel"]
    pixels = [np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in "abc"]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1 and (pixels[0] == pixels[2]).all()


def test_low_memory_takes_a_vae_in_tiles(tmp_path: Path) -> None:
    from mmx.decoders.pretrained import HubDecoder
    from mmx.device import Placed
    from mmx.models.store import locate

    decoder = HubDecoder.load(locate(str(tiny.unclip(tmp_path)), "sound2img", "decoder"))
    decoder.place(Placed("cpu"), low_memory=True)
    assert decoder.pipeline.vae.use_slicing and decoder.pipeline.vae.use_tiling
    assert decoder.device == torch.device("cpu")


def test_out_of_memory_is_exit_4_with_what_would_help(
    mmx_in_process, debug_options, tmp_path: Path, monkeypatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mmx.decoders.diffusion.DiffusionDecoder.decode", full)
    code, _, err = mmx_in_process("text2img", "a dog", "-o", tmp_path / "a.png", *debug_options)
    assert code == 4 and b"out of memory" in err and b"--low-memory" in err and b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []
