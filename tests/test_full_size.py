"""The full-size families on tiny checkpoints of their own formats: each beside the library pipeline's own
image path.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.decoders.pretrained import HubDecoder
from mmx.errors import ModelError, UsageError
from mmx.models.store import Located, locate
from tests import tiny
from tests.conftest import training

STEPS = 3


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(np.kron(rng.integers(0, 255, (6, 5, 3)), np.ones((9, 9, 1))).astype(np.uint8))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The --decoder of each family."""
    folder = tmp_path_factory.mktemp("full")
    names = {"kandinsky": "+".join(map(str, tiny.kandinsky(folder))), "unclip": str(tiny.unclip(folder))}
    return names | {"ip-adapter": "+".join(map(str, tiny.sd(folder)))}


def open_(name: str) -> HubDecoder:
    return HubDecoder.load(locate(name, "sound2img", "decoder"))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def own_image_path(family: str, name: str, photo: Image.Image, guidance: float) -> np.ndarray:
    """What the library's pipeline makes of a picture by itself: no line of ours but the call."""
    import diffusers

    folder, _, companion = name.partition("+")
    common = {"num_inference_steps": STEPS, "guidance_scale": guidance, "generator": generator(), "output_type": "np"}
    if family == "kandinsky":
        prior = diffusers.KandinskyV22PriorPipeline.from_pretrained(companion)
        prior.set_progress_bar_config(disable=True)
        pixels = prior.image_processor(photo, return_tensors="pt").pixel_values
        embeds = prior.image_encoder(pixels)["image_embeds"]  # as its `interpolate` does
        pipeline = diffusers.KandinskyV22Pipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(embeds, prior.get_zero_embed(), height=16, width=16, **common).images[0]
    if family == "unclip":
        pipeline = diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(photo, prompt="", height=16, width=16, **common).images[0]
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(companion, subfolder="models", weight_name="ip-adapter_sd15.safetensors")
    return pipeline("", ip_adapter_image=photo, height=16, width=16, **common).images[0]


@pytest.mark.parametrize("family", ["kandinsky", "unclip", "ip-adapter"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@torch.no_grad()
def test_a_pictures_own_embedding_gives_what_the_library_gives(
    checkpoints: dict[str, str], photo: Image.Image, family: str, guidance: float
) -> None:
    decoder = open_(checkpoints[family])
    embeds = decoder.targets([photo])
    ours = decoder.decode(embeds, generators=[generator()], steps=STEPS, guidance=guidance, size=16)[0]
    theirs = own_image_path(family, checkpoints[family], photo, guidance)
    assert np.abs(np.asarray(ours) - theirs * 255).max() <= 0.5 + 255e-4
    other = decoder.decode(embeds + 3, generators=[generator()], steps=STEPS, guidance=guidance, size=16)[0]
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(other)).max() > 0  # it does listen


@pytest.mark.parametrize("family", ["kandinsky", "unclip", "ip-adapter"])
def test_an_item_does_not_depend_on_its_batch(checkpoints: dict[str, str], family: str) -> None:
    decoder = open_(checkpoints[family])
    embeds = torch.randn(3, *decoder.spec.shape)
    seeds = [torch.Generator().manual_seed(k) for k in range(3)]
    together = decoder.decode(embeds, generators=seeds, steps=2, size=16)
    for k in range(3):
        alone = decoder.decode(embeds[k : k + 1], generators=[torch.Generator().manual_seed(k)], steps=2, size=16)[0]
        assert alone.tobytes() == together[k].tobytes()
    assert together[0].tobytes() != together[1].tobytes()
    with pytest.raises(UsageError, match=r"listens to \[12\], and was given \[13\]"):
        decoder.decode(torch.randn(1, 13), generators=[generator()], steps=1, size=16)
    assert not any(p.requires_grad for p in decoder.pipeline.unet.parameters())


@pytest.mark.parametrize("family", ["kandinsky", "unclip", "ip-adapter"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_what_is_painted_is_what_is_decoded_and_has_gradients(
    checkpoints: dict[str, str], family: str, guidance: float
) -> None:
    decoder = open_(checkpoints[family])
    embeds = torch.randn(1, *decoder.spec.shape, generator=generator()).requires_grad_()
    asked = {"steps": 2, "guidance": guidance, "size": 16}
    pixels = decoder.paint(embeds, generators=[generator()], **asked)
    drawn = np.asarray(decoder.decode(embeds.detach(), generators=[generator()], **asked)[0]).astype(float)
    rounded = ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).detach().numpy()
    assert np.abs(rounded - drawn).max() <= 1
    assert torch.autograd.grad(pixels.square().sum(), embeds)[0].abs().sum() > 0


def test_face_id_is_driven_and_has_no_teacher(tmp_path: Path) -> None:
    decoder = open_("+".join(map(str, tiny.sd(tmp_path, 20, face_id=True))))
    assert decoder.spec.shape == (20,)
    faces = torch.nn.functional.normalize(torch.randn(2, 20), dim=-1)
    pictures = decoder.decode(faces, generators=[generator(), generator()], steps=2, size=16)
    assert pictures[0].size == (16, 16) and pictures[0].tobytes() != pictures[1].tobytes()
    with pytest.raises(ModelError, match="ArcFace"):
        decoder.targets([pictures[0]])


def test_what_is_no_decoder_is_refused(tmp_path: Path, checkpoints: dict[str, str]) -> None:
    kandinsky = checkpoints["kandinsky"].split("+")
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in Path(kandinsky[0]).rglob("*"):
        if path.is_file():
            (alone / path.relative_to(kandinsky[0])).parent.mkdir(parents=True, exist_ok=True)
            (alone / path.relative_to(kandinsky[0])).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="needs kandinsky-2-2-prior") as refused:
        open_(str(alone))
    assert "DECODER+COMPANION" in refused.value.hint
    with pytest.raises(ModelError, match="KandinskyV22PriorPipeline"):
        open_(kandinsky[1])
    (alone / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ModelError, match="can't be loaded"):
        HubDecoder.load(Located("alone", alone, Path(kandinsky[1])))
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        open_(checkpoints["ip-adapter"].split("+")[0] + "+" + str(_empty(tmp_path)))


def _empty(folder: Path) -> Path:
    (folder / "pickled").mkdir()
    (folder / "pickled" / "ip-adapter_sd15.bin").write_bytes(b"")
    return folder / "pickled"


@pytest.mark.parametrize("family", ["kandinsky", "unclip", "ip-adapter"])
def test_a_bridge_is_trained_and_used_on_each_family(
    mmx_in_process, checkpoints: dict[str, str], tmp_path: Path, family: str, bark: Path
) -> None:
    from tests.small_data import pair_folder

    data, run, decoder = pair_folder(tmp_path / "pairs", 24), tmp_path / "run", checkpoints[family]
    command = training("sound2img", data, run, decoder)
    code, _, err = mmx_in_process(*command)
    assert code == 0, err.decode()
    spec = json.loads((run / "config.json").read_text())["spec"]
    assert spec["shape"] == [12] and spec["mean_norm"] != 1.0
    options = ("--bridge", run, "--decoder", decoder, "--steps", 2, "--size", 16)
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *options)
    assert code == 0, err.decode()
    assert Image.open(tmp_path / "a.png").size == (16, 16)
    assert mmx_in_process("reproduce", tmp_path / "a.png", bark, *options[:4])[0] == 0
    others = [name for name in checkpoints if name != family]
    code, _, err = mmx_in_process(
        "sound2img", bark, "-o", tmp_path / "b.png", "--bridge", run, "--decoder", checkpoints[others[0]]
    )
    assert code == 4 and b"was trained for" in err


def test_the_perception_encoder_is_heard_as_its_library_does(tmp_path: Path, bark: Path) -> None:
    """Alone, and out of a checkpoint that sees, too."""
    from transformers import PeAudioFeatureExtractor, PeAudioModel

    from mmx.bridges.audio_encoders import Listener
    from mmx.media.audio import read_audio
    from mmx.models.store import Located

    folder, wave = tiny.pe_audio(tmp_path / "pe"), read_audio(bark, sample_rate=16_000)
    inputs = PeAudioFeatureExtractor.from_pretrained(folder)(wave.samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        own = PeAudioModel.from_pretrained(folder).eval().get_audio_embeds(**inputs)[0]
    for name, at in (("pe", folder), ("pe-av", tiny.pe_audio_video(tmp_path / "pe-av"))):
        heard = Listener.load(Located(name, at)).listen(wave)
        assert heard.shape == (12,) and torch.allclose(heard, own, atol=1e-5)


@pytest.mark.parametrize("make", [tiny.clap, tiny.wavlm, tiny.pe_audio])
def test_a_head_on_a_frozen_encoder(mmx_in_process, make, debug_models, tmp_path: Path, bark: Path) -> None:
    from tests.small_data import pair_folder

    encoder, data, run = make(tmp_path / "encoder"), pair_folder(tmp_path / "pairs", 24), tmp_path / "run"
    command = training("sound2img", data, run, debug_models[1], "--encoder", encoder)
    code, _, err = mmx_in_process(*command)
    assert code == 0, err.decode()
    config = json.loads((run / "config.json").read_text())
    assert config["architecture"] == "frozen" and config["source"]["name"] == "encoder"
    options = ("--bridge", run, "--decoder", debug_models[1], "--steps", 2)
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *options, "--encoder", encoder)[0] == 0
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "b.png", *options)
    assert code == 4 and b"--encoder" in err
    other = make(tmp_path / "other")
    weights = other / "config.json"
    weights.write_text(weights.read_text() + " ")
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "b.png", *options, "--encoder", other)
    assert code == 4 and b"was trained with the encoder" in err
