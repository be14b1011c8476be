"""Joint embeddings: the spaces themselves, and `mmx embed` and `mmx tag`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load

from mmx.errors import InputError, ModelError, NonFiniteError
from mmx.media.audio import Waveform, read_audio, wav_bytes
from mmx.media.image import read_image
from mmx.models.store import Located
from mmx.spaces.base import Space
from mmx.spaces.load import load_space
from mmx.spaces.parts import Cuts, Part, embedded, parts_of
from mmx.spaces.tags import Tagger
from tests import small_space as small
from tests.conftest import tone
from tests.small_space import small_space
from tests.test_video import video

WORDS = ["a photo of a dog", "cat"]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    from tests.tiny_spaces import clip

    return clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory) -> Path:
    from tests.tiny_spaces import siglip

    return siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory) -> Path:
    from tests.tiny import clap

    return clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for name in ("red", "green", "blue"):
        paths.append(tmp_path / "pictures" / f"{name}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 16), name).save(paths[-1])
    return paths


@pytest.fixture
def in_small(mmx_in_process, monkeypatch) -> Callable[..., tuple[int, bytes, bytes]]:
    """The command, in a space without models."""
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space())
    return mmx_in_process


def test_a_decoders_space_holds_what_its_teacher_and_bridge_give(debug_models, bark: Path, pictures) -> None:
    bridge, decoder = debug_models
    space = load_space(str(decoder), bridge=str(bridge), device="cpu")
    from mmx.bridges.sound import SoundBridge
    from mmx.decoders.unclip import ImageDecoder

    teacher, own = ImageDecoder.load(decoder).teacher, SoundBridge.load(bridge)
    wave = read_audio(bark, sample_rate=space.rate, window=space.window)
    images = [read_image(path) for path in pictures]
    assert space.modalities == ("image", "sound", "text") and space.labels == ("car", "cat", "dog")
    assert torch.allclose(space.encode(images, "image"), F.normalize(teacher.embed(images), dim=-1), atol=1e-6)
    assert torch.allclose(space.encode([wave, wave], "sound")[1], own.point(wave), atol=1e-6)
    assert torch.allclose(space.encode(WORDS, "text"), teacher.embed_texts(WORDS), atol=1e-6)
    assert space.scale["sound"] == own.logit_scale  # and it is in no vector
    assert torch.allclose(space.encode([wave], "sound").norm(dim=1), torch.ones(1))


def test_a_space_is_known_by_all_its_weights(debug_models, tmp_path: Path) -> None:
    from tests.debug import make_bridge

    bridge, decoder = debug_models
    other = make_bridge(tmp_path / "other", decoder, seed=1)
    first, second = (load_space(str(decoder), bridge=str(at), device="cpu") for at in (bridge, other))
    assert first.fingerprint != second.fingerprint  # sounds are elsewhere
    alone = load_space(str(decoder), device="cpu")  # the starter's bridge was trained for another decoder
    assert alone.modalities == ("image", "text") and alone.fingerprint not in (first.fingerprint, second.fingerprint)
    with pytest.raises(ModelError, match="no sounds: it has images and texts"):
        alone.encode([Waveform(tone(), 16_000)], "sound")


def test_a_decoder_of_the_other_family_is_a_space_too(tmp_path: Path, pictures) -> None:
    from mmx.decoders.base import fingerprint
    from mmx.decoders.gan import GanDecoder
    from tests.tiny_spaces import gan_decoder

    folder = gan_decoder(tmp_path / "gan")
    space, decoder = load_space(str(folder), device="cpu"), GanDecoder.load(folder)
    images = [read_image(path) for path in pictures]
    assert space.fingerprint == fingerprint(folder, ("teacher",)) != decoder.spec.fingerprint
    assert torch.allclose(space.encode(images, "image"), F.normalize(decoder.targets(images), dim=-1), atol=1e-6)


def test_a_bridge_for_another_space_is_refused(debug_models, tmp_path: Path) -> None:
    from tests.tiny_spaces import gan_decoder

    with pytest.raises(ModelError, match="was trained for debug/embedding"):
        load_space(str(gan_decoder(tmp_path / "gan")), bridge=str(debug_models[0]), device="cpu")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_clip_and_siglip_give_what_their_own_classes_give(request, kind: str, pictures) -> None:
    from transformers import AutoModel, AutoProcessor, AutoTokenizer

    folder = request.getfixturevalue(f"{kind}_folder")
    space = load_space(str(folder), device="cpu")
    model, images = AutoModel.from_pretrained(folder).eval(), [read_image(path) for path in pictures]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    padding = {"clip": True, "siglip": "max_length"}[kind]
    tokens = tokenizer(WORDS, padding=padding, max_length=16, truncation=True, return_tensors="pt")
    from transformers import AutoImageProcessor

    pixels = AutoImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")
    with torch.inference_mode():
        whole = model(**tokens, **pixels)
    assert torch.allclose(space.encode(images, "image"), F.normalize(whole.image_embeds, dim=-1), atol=1e-5)
    assert torch.allclose(space.encode(WORDS, "text"), F.normalize(whole.text_embeds, dim=-1), atol=1e-5)
    # zero-shot shares are those of the library's own logits
    logits = space.encode(images, "image") @ space.encode(WORDS, "text").T * space.scale["image"]
    bias = getattr(model, "logit_bias", torch.zeros(1)).detach()
    assert torch.allclose(logits, whole.logits_per_image - bias, atol=1e-4)
    assert AutoProcessor is not None and space.dim == whole.image_embeds.shape[1]


def test_clap_gives_what_its_own_class_gives(clap_folder: Path) -> None:
    from mmx.bridges.audio_encoders import Listener

    space = load_space(str(clap_folder), device="cpu")
    wave, listener = Waveform(tone(0.5, rate=space.rate), space.rate), Listener.load(Located("clap", clap_folder))
    assert space.modalities == ("sound", "text")
    assert torch.allclose(space.encode([wave], "sound")[0], F.normalize(listener.listen(wave), dim=-1), atol=1e-6)
    assert torch.allclose(space.encode(WORDS, "text"), F.normalize(listener.embed_texts(WORDS), dim=-1), atol=1e-6)
    assert "a dog barking" in space.labels


def test_what_is_no_space_is_refused(tmp_path: Path, face_models) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match="is a vit model, and no space"):
        load_space(str(tmp_path))
    with pytest.raises(ModelError, match="reads no texts"):
        load_space(str(face_models[1]))


def test_a_model_that_gives_no_numbers_is_named() -> None:
    space = small_space()
    broken = Space(**vars(space) | {"encoders": {"text": lambda texts: torch.full((len(texts), 8), float("nan"))}})
    with pytest.raises(NonFiniteError, match="small gives no numbers for this text"):
        broken.encode(["a"], "text")


def test_a_label_is_the_mean_of_its_prompts() -> None:
    space = small_space()
    texts = space.encode(["a red picture", "red", "a blue picture", "blue"], "text")
    expected = F.normalize(torch.stack((texts[:2].mean(0), texts[2:].mean(0))), dim=-1)
    assert torch.allclose(space.encode_labels(["red", "blue"], "image"), expected, atol=1e-6)


def test_tags_are_a_softmax_at_the_spaces_scale() -> None:
    space = small_space()
    vector = space.encode([Image.new("RGB", (4, 4), "red")], "image")[0]
    found = Tagger(space).tags(vector, "image", top=2)
    similar = space.encode_labels(space.labels, "image") @ vector
    assert [tag.label for tag in found] == ["red", "red and blue"]
    assert found[0].share == pytest.approx(float((10 * similar).softmax(0)[0]), abs=1e-4)
    assert found[0].similarity == pytest.approx(float(similar[0]), abs=1e-4)


def test_parts_of_mixed_batches_keep_their_order() -> None:
    space, picture, wave = small_space(), Image.new("RGB", (4, 4), "red"), Waveform(tone(), 16_000)
    parts = [Part("text", "blue"), Part("image", picture), Part("sound", wave), Part("text", "red")] * 20
    rows = list(embedded(space, iter(parts)))
    assert [part for part, _ in rows] == parts
    for part, vector in rows[:4] + rows[-4:]:
        assert torch.allclose(vector, space.encode([part.medium], part.modality)[0], atol=1e-6)


def test_a_video_is_its_moments(tmp_path: Path) -> None:
    found = list(parts_of(small_space(), video(tmp_path / "a.mkv"), "a.mkv", Cuts(every=4.0)))
    assert [(part.modality, round(part.start)) for part in found] == [
        *(("image", 2), ("sound", 2), ("image", 6), ("sound", 6)),
        *(("image", 10), ("sound", 10), ("image", 14), ("sound", 14)),  # the window reaches beyond the silent scene
    ]
    mute = video(tmp_path / "b.mkv", seconds=0.5, sounds=False)  # in all shorter than a moment's half
    assert [(part.modality, part.start) for part in parts_of(small_space(), mute, "b.mkv", Cuts(every=9.0))] == [
        ("image", 0.125)
    ]


def test_texts_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("a red thing\n\n  blue\tthings  \n")
    found = list(parts_of(small_space(), path, str(path)))
    assert [(part.line, part.medium) for part in found] == [(1, "a red thing"), (3, "blue things")]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text in UTF-8"):
        list(parts_of(small_space(), path, str(path)))
    path.write_text("\n \n")
    with pytest.raises(InputError, match="nothing in it"):
        list(parts_of(small_space(), path, str(path)))


def test_a_kind_of_file_that_a_space_is_not_for_is_refused(bark: Path) -> None:
    with pytest.raises(ModelError, match="has no sounds"):
        list(parts_of(small_space(without="sound"), bark, str(bark), Cuts()))


def test_embed_writes_vectors_and_what_they_are_of(in_small, tmp_path: Path, pictures, bark: Path) -> None:
    out = tmp_path / "v.safetensors"
    code, printed, err = in_small("embed", pictures[0].parent, bark, "--text", "red", "-o", out)
    assert code == 0 and printed == b"" and b"5 vectors" in err
    with safe_open(out, "pt") as file:
        about, vectors = json.loads(file.metadata()["mmx"]), file.get_tensor("vectors")
    rows = about.pop("rows")
    assert about == {"schema": "mmx.vectors/1", "space": "small", "fingerprint": small_space().fingerprint}
    assert [Path(row["id"]).name for row in rows] == ["red", "blue.png", "green.png", "red.png", "bark.wav"]
    assert [row["modality"] for row in rows] == ["text", "image", "image", "image", "sound"]
    assert torch.allclose(vectors[3], small_space().encode([read_image(pictures[0])], "image")[0])
    assert in_small("embed", bark, "-o", out)[0] == 2 and in_small("embed", bark, "-o", out, "--overwrite")[0] == 0


def test_embed_to_stdout_and_as_json(in_small, bark: Path) -> None:
    code, out, _ = in_small("embed", bark, "-o", "-", "-q")
    assert code == 0 and load(out)["vectors"].shape == (1, small.DIM)
    code, out, _ = in_small("embed", bark, "--text", "blue", "--json", "-q")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [line["modality"] for line in lines] == ["text", "sound"]
    assert all(line["schema"] == "mmx.vectors/1" and len(line["vector"]) == small.DIM for line in lines)


def test_stdin_is_looked_into(in_small, pictures, bark: Path, monkeypatch) -> None:
    import io
    import sys
    from types import SimpleNamespace

    for path, modality in ((pictures[0], "image"), (bark, "sound")):
        stdin = SimpleNamespace(buffer=io.BytesIO(path.read_bytes()), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, _ = in_small("embed", "-", "--json", "-q")
        assert code == 0 and json.loads(out)["modality"] == modality and json.loads(out)["id"] == "stdin"


def test_tag_names_what_fits(in_small, pictures) -> None:
    code, out, _ = in_small("tag", pictures[0].parent, "--json", "--top", 1)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and all(line["schema"] == "mmx.tags/1" for line in lines)
    found = {Path(line["input"]).stem: line["tags"][0]["label"] for line in lines}
    assert found["red"] == "red" and found["green"] == "green" and found["blue"] == "blue"
    code, out, _ = in_small("tag", pictures[0], "--labels", "green, blue ,green", "--threshold", "0.9")
    assert code == 0 and b"nothing that is so likely" in out


def test_tag_takes_labels_from_a_file(in_small, tmp_path: Path, pictures) -> None:
    (tmp_path / "labels").write_text("green\nblue\n")
    code, out, _ = in_small("tag", pictures[1], "--labels-file", tmp_path / "labels")
    assert code == 0 and out.decode().count(",") == 1 and b"green.png: green" in out


def test_one_bad_file_does_not_stop_the_rest(in_small, tmp_path: Path, pictures) -> None:
    (pictures[0].parent / "broken.png").write_bytes(b"\x89PNG")
    silent = wav_bytes(Waveform(np.zeros(8000, np.float32), 16_000))
    (pictures[0].parent / "silent.wav").write_bytes(silent)
    code, out, _ = in_small("tag", pictures[0].parent, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 6 and [line["schema"] for line in lines].count("mmx.tags/1") == 3
    assert {Path(line["input"]).name for line in lines if "error" in line and "input" in line} == {
        "broken.png",
        "silent.wav",
    }
    out_file = tmp_path / "v.safetensors"
    assert in_small("embed", pictures[0].parent, "-o", out_file)[0] == 6
    assert load(out_file.read_bytes())["vectors"].shape[0] == 3


def test_what_a_space_has_no_encoder_for_is_left_out_of_a_batch(mmx_in_process, monkeypatch, pictures, bark) -> None:
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space(without="sound"))
    for command in (("embed", "--json"), ("tag",)):
        code, out, err = mmx_in_process(*command, pictures[0], bark, pictures[1])
        assert code == 0 and len(out.splitlines()) == 2 and b"1 files left out" in err
        code, _, _ = mmx_in_process(*command, bark)
        assert code == 4


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("embed {bark}", 2),
        ("embed -o {tmp}/v.safetensors", 2),
        ("embed {bark} -o {tmp}/v.npy", 2),
        ("embed {bark} -o - --json", 2),
        ("embed nope.wav --json", 2),
        ("embed {bark} --json --every 0", 2),
        ("tag", 2),
        ("tag {bark} --labels ,", 2),
        ("tag {bark} --labels a --labels-file {tmp}/l", 2),
        ("tag {bark} --labels-file {tmp}/l", 2),
        ("tag {bark} --space nowhere", 2),
        ("tag {bark} --bridge nowhere", 2),
        ("tag {readme} --labels a", 3),
    ],
)
def test_exit_codes(in_small, tmp_path: Path, bark: Path, line: str, code: int) -> None:
    from tests.conftest import ROOT

    words = [word.format(bark=bark, tmp=tmp_path, readme=ROOT / "README.md") for word in line.split()]
    got, out, err = in_small(*words)
    assert got == code and b"bug" not in out + err and (b"mmx: " in err or b"mmx.error/1" in out), err
    assert list(tmp_path.iterdir()) == []


def test_a_space_without_labels_asks_for_some(mmx_in_process, clip_folder: Path, pictures) -> None:
    code, _, err = mmx_in_process("tag", pictures[0], "--space", clip_folder)
    assert code == 2 and b"--labels" in err
    code, out, _ = mmx_in_process("tag", pictures[0], "--space", clip_folder, "--labels", "dog,cat", "--json")
    tags = json.loads(out)["tags"]
    assert code == 0 and {tag["label"] for tag in tags} == {"dog", "cat"}
    assert sum(tag["share"] for tag in tags) == pytest.approx(1, abs=1e-3)
    code, _, err = mmx_in_process("tag", pictures[0], "--space", clip_folder, "--bridge", clip_folder)
    assert code == 2 and b"no image decoder" in err
