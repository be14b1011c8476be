"""Full-size face decoders: Arc2Face and IP-Adapter FaceID, driven by a recogniser's embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.decoders.pretrained import FACE_PROMPT, HubDecoder, face_prompt
from mmx.decoders.pretrained_parts import OnnxFaces
from mmx.errors import ModelError
from mmx.models.store import locate
from tests import tiny
from tests.conftest import training
from tests.small_data import png


def open_(name: str) -> HubDecoder:
    return HubDecoder.load(locate(name, "voice2face", "decoder"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The --decoder of each family, with a recogniser beside it."""
    folder = tmp_path_factory.mktemp("faces")
    sd, adapter = tiny.sd(folder / "a", 12, face_id=True)
    tiny.recogniser(adapter / "arcface.onnx", 12)
    return {"face-id": f"{sd}+{adapter}", "arc2face": "+".join(map(str, tiny.arc2face(folder / "b")))}


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8))


def test_the_recogniser_is_its_graph(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    path = tiny.recogniser(tmp_path / "arcface.onnx", 12)
    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    picture = photo().resize((16, 16))
    naive = (np.asarray(picture, np.float32).transpose(2, 0, 1).reshape(1, -1) / 127.5 - 1) @ weights
    ours = OnnxFaces(path).embed([picture])[0]
    assert torch.allclose(ours, torch.from_numpy(naive / np.linalg.norm(naive))[0], atol=1e-5)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="can't be read"):
        OnnxFaces(tmp_path / "bad.onnx")


@torch.no_grad()
def test_a_face_takes_the_place_of_one_token(faces: dict[str, str]) -> None:
    """Beside a tower whose embedding table itself holds the face in that token's row."""
    pipeline = open_(faces["arc2face"]).pipeline
    face = torch.nn.functional.normalize(torch.randn(1, 12), dim=-1)
    ours = face_prompt(pipeline, face)
    tower, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    token = tokenizer.encode("id", add_special_tokens=False)
    assert len(token) == 1
    table = tower.get_input_embeddings().weight
    before = table[token[0]].clone()
    table[token[0]] = torch.nn.functional.pad(face[0], (0, 4))
    length = tokenizer.model_max_length
    ids = tokenizer(FACE_PROMPT, padding="max_length", max_length=length, return_tensors="pt").input_ids
    theirs = tower(ids).last_hidden_state
    table[token[0]] = before
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(tower(ids).last_hidden_state, theirs, atol=1e-3)  # and nothing of it stays
    two = face_prompt(pipeline, torch.cat((face, -face)))
    assert torch.allclose(two[0], ours[0], atol=1e-5) and not torch.allclose(two[1], ours[0], atol=1e-3)


@torch.no_grad()
def test_arc2face_is_the_librarys_pipeline_with_its_parts(faces: dict[str, str]) -> None:
    import diffusers
    from transformers import CLIPTextModel

    base, companion = map(Path, faces["arc2face"].split("+"))
    decoder = open_(faces["arc2face"])
    embeds = decoder.targets([photo()])
    ours = decoder.decode(embeds, generators=[torch.Generator().manual_seed(7)], steps=3, size=16)[0]
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        base,
        unet=diffusers.UNet2DConditionModel.from_pretrained(companion / "arc2face"),
        text_encoder=CLIPTextModel.from_pretrained(companion / "encoder"),
        safety_checker=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt_embeds=face_prompt(pipeline, embeds), num_inference_steps=3, guidance_scale=3.0, height=16, width=16,
        generator=torch.Generator().manual_seed(7), output_type="np",
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(ours) - theirs * 255).max() <= 0.5 + 255e-4


@pytest.mark.parametrize("family", ["face-id", "arc2face"])
def test_a_voice_bridge_is_trained_and_used(
    mmx_in_process, faces: dict[str, str], tmp_path: Path, low: Path, family
) -> None:
    data, run, decoder = tmp_path / "pairs", tmp_path / "run", faces[family]
    (data / "audios").mkdir(parents=True)
    (data / "images").mkdir()
    for number in range(24):
        (data / "audios" / f"{number}.wav").write_bytes(low.read_bytes() + bytes(number))
        (data / "images" / f"{number}.png").write_bytes(png(9 * number))
    command = training("voice2face", data, run, decoder)
    code, _, err = mmx_in_process(*command)
    assert code == 2 and b"--loss infonce" in err  # the paper's own needs a decoder that names what it sees
    code, _, err = mmx_in_process(*command, "--loss", "infonce")
    assert code == 0, err.decode()
    spec = json.loads((run / "config.json").read_text())["spec"]
    assert spec["shape"] == [12] and spec["mean_norm"] == pytest.approx(1, abs=1e-3)
    options = ("--bridge", run, "--decoder", decoder, "--steps", 2)
    code, _, err = mmx_in_process("voice2face", low, "-o", tmp_path / "a.png", *options)
    assert code == 0, err.decode()
    assert b"identifies nobody" in err
    assert Image.open(tmp_path / "a.png").size == (16, 16)
    other = faces["arc2face" if family == "face-id" else "face-id"]
    code, _, err = mmx_in_process("voice2face", low, "-o", tmp_path / "b.png", "--bridge", run, "--decoder", other)
    assert code == 4 and b"was trained for" in err
