"""The starter teachers' towers are the transformers library's, to the last byte, and so are their folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmx.decoders.teacher import Teacher
from mmx.errors import ModelError
from mmx.nets.towers import ResNet, TextTower
from tests.small_gan import small_teacher


def _randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Weights of no particular size, and statistics as after a training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value += 0.2 * torch.rand(value.shape, generator=generator) * (1 if "running_var" in name else 2) - 0.1
    return module


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("training", [False, True])
def test_what_sees_is_the_librarys_own(pictures: torch.Tensor, training: bool) -> None:
    from transformers import ResNetConfig, ResNetModel

    sizes, depths = [16, 24, 32], [1, 2, 2]
    config = ResNetConfig(embedding_size=16, hidden_sizes=sizes, depths=depths, layer_type="basic")
    theirs = _randomised(ResNetModel(config)).to(memory_format=torch.channels_last).train(training)
    ours = ResNet(sizes, depths).to(memory_format=torch.channels_last).train(training)
    ours.load_state_dict(theirs.state_dict())
    wanted, got = theirs(pictures, output_hidden_states=True).hidden_states, ours(pictures)
    assert len(wanted) == len(got) == 4 and all(map(torch.equal, wanted, got))
    wanted[-1].square().mean().backward()
    got[-1].square().mean().backward()
    grads = dict(theirs.named_parameters())
    assert all(torch.equal(p.grad, grads[name].grad) for name, p in ours.named_parameters())
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())


TEXTS = {
    "padded": ([[1, 9, 70, 2, 0, 0], [1, 30, 31, 32, 33, 2]], [[1, 1, 1, 1, 0, 0], [1] * 6]),
    "whole": ([[1, 9, 70, 2], [1, 5, 4, 2]], [[1] * 4, [1] * 4]),
    "one token": ([[2]], [[1]]),
}


@pytest.mark.parametrize("case", TEXTS)
def test_what_reads_is_the_librarys_own(case: str) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16, projection_dim=24, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    theirs = _randomised(CLIPTextModelWithProjection(config))
    ours = TextTower(80, 32, 48, 2, heads=4, dim=24)
    ours.load_state_dict(theirs.state_dict())
    ids, mask = map(torch.tensor, TEXTS[case])
    wanted, got = theirs(input_ids=ids, attention_mask=mask).text_embeds, ours(ids, mask)
    assert torch.equal(wanted, got)
    wanted.square().sum().backward()
    got.square().sum().backward()
    grads = dict(theirs.named_parameters())
    assert all(torch.equal(p.grad, grads[name].grad) for name, p in ours.named_parameters())


WORDS = ["a photo of a dog", "Sea", "", "Ünïcode ☃ and", "words that go on and on and on and on and on and on and on"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("teacher")
    small_teacher().save(where)
    return where


def test_the_library_reads_the_same_teacher_from_its_folder(folder: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextModelWithProjection, ResNetModel

    ours = Teacher.load(folder)
    tokens = AutoTokenizer.from_pretrained(folder / "tokenizer")(
        WORDS, padding=True, truncation=True, return_tensors="pt"
    )
    ids, mask = ours.reader(WORDS)
    assert torch.equal(ids, tokens.input_ids) and torch.equal(mask, tokens.attention_mask)
    assert ids.shape == (len(WORDS), 16)  # the last one is cut
    text = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    sight = ResNetModel.from_pretrained(folder / "image_encoder", dtype=torch.float32)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        points = torch.nn.functional.normalize(text(**tokens).text_embeds, dim=-1)
        assert torch.equal(points, ours.embed_texts(WORDS))
        torch.testing.assert_close(sight(pixels).last_hidden_state, ours.net.image_encoder(pixels)[-1])


def test_a_teacher_that_was_loaded_is_saved_as_it_was(folder: Path, tmp_path: Path) -> None:
    teacher = Teacher.load(folder)
    teacher.embed_texts(WORDS)
    teacher.save(tmp_path)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("image_encoder/config.json", lambda text: text.replace('"basic"', '"bottleneck"'), "bottleneck"),
        ("text_encoder/config.json", lambda text: text.replace('"quick_gelu"', '"gelu"'), "gelu"),
        ("text_encoder/config.json", lambda text: text[:20], "config.json"),
        ("image_encoder/model.safetensors", lambda text: text[:100], "tower"),
        ("tokenizer/tokenizer.json", lambda text: text[:100], "tokenizer"),
    ],
)
def test_a_tower_of_another_kind_or_a_broken_one_is_a_model_error(
    folder: Path, tmp_path: Path, part: str, change: Callable[[str], str], said: str
) -> None:
    shutil.copytree(folder, tmp_path / "teacher")
    path = tmp_path / "teacher" / part
    path.write_text(change(path.read_text(encoding="latin1")), encoding="latin1")
    with pytest.raises(ModelError, match=said):
        Teacher.load(tmp_path / "teacher")
