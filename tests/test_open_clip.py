"""Checkpoints in open_clip's own format, beside the library itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmx.errors import ModelError
from mmx.spaces.load import load_space
from mmx.spaces.open_clip import renamed
from mmx.spaces.pretrained import PHOTO_PROMPTS
from mmx.training.bridges.measures import retrieval

SIZE, LENGTH, DIM = 32, 16, 12
NAMES = ["dog", "cat", "a photo", "of id"]


def config(vocabulary: int, **changes: object) -> dict:
    vision = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": LENGTH, "vocab_size": vocabulary, "width": 32, "heads": 2, "layers": 2}
    return {"embed_dim": DIM, "vision_cfg": vision, "text_cfg": text} | changes


def weights(vocabulary: int) -> dict[str, torch.Tensor]:
    """Of a CLIP by open_clip's names, random."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "positional_embedding": (LENGTH, 32),
        "token_embedding.weight": (vocabulary, 32),
        "text_projection": (32, DIM),
        "visual.class_embedding": (64,),
        "visual.positional_embedding": (17, 64),
        "visual.conv1.weight": (64, 3, 8, 8),
        "visual.proj": (64, DIM),
    }
    norms = {"ln_final": 32, "visual.ln_pre": 64, "visual.ln_post": 64}
    for prefix, width in (("", 32), ("visual.", 64)):
        for k in range(2):
            block = f"{prefix}transformer.resblocks.{k}"
            norms |= {f"{block}.ln_1": width, f"{block}.ln_2": width}
            shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            for part, (a, b) in {"attn.out_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}.items():
                shapes |= {f"{block}.{part}.weight": (a * width, b * width), f"{block}.{part}.bias": (a * width,)}
    shapes |= {f"{name}.{kind}": (width,) for name, width in norms.items() for kind in ("weight", "bias")}
    return {
        name: 0.2 * torch.randn(shape) + (name.endswith(".weight") and "ln" in name) for name, shape in shapes.items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tests.tiny import text

    tokenizer = text()[1]
    path = tmp_path / "checkpoint"
    path.mkdir()
    tokenizer.save_pretrained(path)
    about = {"model_cfg": config(len(tokenizer)), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (path / "open_clip_config.json").write_text(json.dumps(about))
    save_file(weights(len(tokenizer)), path / "open_clip_model.safetensors")
    return path


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)) for _ in range(12)]


def test_the_librarys_own_figures_are_ours(folder: Path, pictures: list[Image.Image]) -> None:
    """Embeddings, zero-shot classification and retrieval, to 1e-4."""
    library = pytest.importorskip("open_clip")
    train = pytest.importorskip("open_clip_train.train")
    space = load_space(str(folder), device="cpu")
    about = json.loads((folder / "open_clip_config.json").read_text())
    theirs = library.model.CLIP(**{k: v for k, v in about["model_cfg"].items()}).eval()
    theirs.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=False)

    from transformers import AutoTokenizer

    reader = AutoTokenizer.from_pretrained(folder)

    def tokens(texts: list[str]) -> torch.Tensor:
        return reader(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]

    seen = library.transform.image_transform(SIZE, is_train=False, mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.inference_mode():
        images = theirs.encode_image(torch.stack([seen(picture) for picture in pictures]), normalize=True)
        captions = [f"a photo of {name} number {k}" for k, name in enumerate(NAMES * 3)]
        texts = theirs.encode_text(tokens(captions), normalize=True)
        classifier = library.build_zero_shot_classifier(theirs, tokens, NAMES, list(PHOTO_PROMPTS))
    assert torch.allclose(space.encode(pictures, "image"), images, atol=1e-4)
    assert torch.allclose(space.encode(captions, "text"), texts, atol=1e-4)
    assert torch.allclose(space.encode_labels(NAMES, "image"), classifier.T, atol=1e-4)
    scale = theirs.logit_scale.exp().detach()
    ours = (space.encode(pictures, "image") @ space.encode_labels(NAMES, "image").T * space.scale["image"]).softmax(1)
    assert torch.allclose(ours, (images @ classifier * scale).softmax(1), atol=1e-4)
    expected, own = train.get_clip_metrics(images, texts, scale), torch.arange(len(pictures))
    found = retrieval(space.encode(pictures, "image"), space.encode(captions, "text"), own, own)
    for k in (1, 5, 10):
        assert found[f"val_recall_at_{k}"] == pytest.approx(expected[f"image_to_text_R@{k}"], abs=1e-4)
        assert found[f"val_back_recall_at_{k}"] == pytest.approx(expected[f"text_to_image_R@{k}"], abs=1e-4)
    assert found["val_mean_rank"] == pytest.approx(expected["image_to_text_mean_rank"], abs=1e-4)


def test_a_checkpoint_is_a_space_like_any_other(
    folder: Path, pictures: list[Image.Image], mmx_in_process, tmp_path
) -> None:
    pictures[0].save(tmp_path / "a.png")
    code, out, err = mmx_in_process("tag", tmp_path / "a.png", "--labels", "dog,cat", "--space", folder, "--json")
    assert code == 0 and len(json.loads(out)["tags"]) == 2, err.decode()
    assert load_space(str(folder), device="cpu").cells(pictures[0]).shape == (4, 4, DIM)


def test_every_tensor_has_a_name_and_a_place() -> None:
    given = weights(100)
    found = renamed(given | {"attn_mask": torch.zeros(1)})
    assert sum(value.numel() for value in found.values()) == sum(value.numel() for value in given.values())
    third = found["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    assert torch.equal(third, given["visual.transformer.resblocks.1.attn.in_proj_weight"][64:128])
    assert torch.equal(found["visual_projection.weight"], given["visual.proj"].T)
    apart = {f"text.{n}" if not n.startswith(("visual", "logit")) else n: v for n, v in given.items()}
    assert found.keys() == renamed(apart).keys()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_x", "image_size": 32}}, "vit_x"),
        ({"text_cfg": {"hf_model_name": "roberta"}}, "roberta"),
        ({"vision_cfg": {"layers": [3, 4], "image_size": 32, "patch_size": 8}}, "ResNet"),
        ({"vision_cfg": {}}, "can't be read"),
        ({"embed_dim": 13}, "can't be read"),
    ],
)
def test_other_towers_are_refused_by_name(folder: Path, changes: dict, said: str) -> None:
    about = json.loads((folder / "open_clip_config.json").read_text())
    about["model_cfg"] |= changes
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=said):
        load_space(str(folder), device="cpu")
