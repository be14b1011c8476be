"""Where in a picture something is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.errors import ModelError
from mmx.media.audio import Waveform, wav_bytes
from mmx.models.store import Located
from mmx.spaces.base import Space
from mmx.spaces.cells import _by_values, teacher_cells
from mmx.spaces.load import load_space
from mmx.spaces.place import draw_mask, draw_place, find_place
from mmx.spaces.query import parse_query
from tests.conftest import tone
from tests.small_space import small_space

WIDTH, HEIGHT = 120, 80


@pytest.fixture
def street() -> Image.Image:
    """Grey, with a red part on the lower right and a blue one on the upper left."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (60, 60, 60))
    picture.paste("red", (60, 40, 120, 80))
    picture.paste("blue", (0, 0, 60, 40))
    return picture


@pytest.fixture
def in_small(mmx_in_process, monkeypatch, tmp_path: Path, street) -> Callable[..., tuple[int, bytes, bytes]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space())
    street.save("street.png")
    return mmx_in_process


@pytest.mark.parametrize(
    ("query", "corner"), [("red", (1, 1)), ("blue", (0, 0)), ("red - 'blue'", (1, 1)), ("blue + 0.1*'red'", (0, 0))]
)
def test_a_peak_and_a_box_are_where_the_thing_is(street, query: str, corner: tuple[int, int]) -> None:
    place = find_place(small_space(), street, parse_query(query))
    assert (place.peak[0] * 2 // WIDTH, place.peak[1] * 2 // HEIGHT) == corner
    left, top, right, bottom = place.box
    assert left <= place.peak[0] < right and top <= place.peak[1] < bottom
    there = (corner[0] * 60, corner[1] * 40, corner[0] * 60 + 60, corner[1] * 40 + 40)
    meet = (max(left, there[0]), max(top, there[1]), min(right, there[2]), min(bottom, there[3]))
    inside = (meet[2] - meet[0]) * (meet[3] - meet[1])
    assert inside / ((right - left) * (bottom - top) + 60 * 40 - inside) > 0.6  # intersection over union
    assert place.here is None  # of this space nobody calibrated that


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (17, 90)])
def test_pictures_of_any_size_have_places_in_them(size: tuple[int, int]) -> None:
    place = find_place(small_space(), Image.new("RGB", size, "red"), parse_query("red"))
    left, top, right, bottom = place.box
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert 0 <= place.peak[0] < size[0] and 0 <= place.peak[1] < size[1]


def test_drawings_have_the_pictures_size(street) -> None:
    place = find_place(small_space(), street, parse_query("red"))
    mask = np.asarray(draw_mask(street, place))
    assert mask.shape == (HEIGHT, WIDTH, 3) and mask[70, 100].tolist() == [255, 255, 255] and not mask[10, 10].any()
    drawn = np.asarray(draw_place(street, place)).astype(int)
    changed = np.abs(drawn - np.asarray(street)).sum(-1)
    assert drawn.shape == mask.shape and changed[70, 100] > 100 > changed[5, 60]


def test_the_cells_of_a_teacher_mean_what_the_whole_does(debug_models) -> None:
    """Its semantic part is linear in the mean over the feature map: so is the mean over cells, before they are of unit
    norm."""
    from mmx.decoders.teacher import Teacher, pixels_of

    teacher = Teacher.load(debug_models[1] / "teacher")
    picture = Image.effect_noise((200, 120), 90).convert("RGB")
    with torch.inference_mode():
        cells = teacher_cells(teacher, picture)
        pixels = pixels_of(picture, 2 * teacher.image_size)[None]
        features = teacher.net.image_encoder(pixels)[-1]
        whole = teacher.net.semantic(features.mean((2, 3)))[0]
        each = teacher.net.semantic(features[0].permute(1, 2, 0))
    assert torch.allclose(each.mean((0, 1)), whole, atol=1e-5)
    width = teacher.net.semantic.out_features
    assert cells.shape[1] > cells.shape[0] and cells.shape[2] == teacher.net.dim  # as wide as the picture is
    assert torch.allclose(cells.norm(dim=-1), torch.ones(cells.shape[:2]), atol=1e-5) and not cells[..., width:].any()
    square = teacher_cells(teacher, picture.resize((2 * teacher.image_size,) * 2))
    assert square.shape[0] == square.shape[1]


def test_a_decoders_space_says_where(debug_models, street, bark: Path) -> None:
    bridge, decoder = debug_models
    space = load_space(str(decoder), bridge=str(bridge), device="cpu")
    for query in ("a photo of a dog", str(bark)):
        place = find_place(space, street, parse_query(query))
        assert np.isfinite(place.heat).all() and place.mask.any()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_transformers_grid_is_of_its_patches(kind: str, tmp_path: Path, street) -> None:
    from tests import tiny_spaces

    space = load_space(str(getattr(tiny_spaces, kind)(tmp_path / kind)), device="cpu")
    with torch.inference_mode():
        cells = space.cells(street)
    assert cells.shape == (4, 4, space.dim) and torch.allclose(cells.norm(dim=-1), torch.ones(4, 4), atol=1e-5)
    assert find_place(space, street, parse_query("a photo of a dog")).mask.any()


def test_a_siglip_of_one_patch_is_the_whole(tmp_path: Path) -> None:
    """Its pooling of one patch alone is what it makes of a picture that is one patch."""
    from transformers import SiglipModel

    from mmx.spaces.cells import siglip_cells
    from tests.tiny_spaces import siglip

    model = SiglipModel.from_pretrained(siglip(tmp_path / "siglip")).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        cells = siglip_cells(model, pixels)
        hidden = model.vision_model(pixels).last_hidden_state
        alone = model.vision_model.head(hidden[:, 5:6])[0]
    assert torch.allclose(cells[1, 1], F.normalize(alone, dim=-1), atol=1e-5)


def test_attention_by_values_is_attention_whose_queries_and_keys_are_values() -> None:
    """Against the library's own class, with those projections put in the others' place."""
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPAttention

    torch.manual_seed(0)
    config = CLIPVisionConfig(hidden_size=16, num_attention_heads=2)
    config._attn_implementation = "eager"
    attention, hidden = CLIPAttention(config).eval(), torch.randn(1, 5, 16)
    with torch.inference_mode():
        found = _by_values(attention, hidden)
        attention.q_proj.load_state_dict(attention.v_proj.state_dict())
        attention.k_proj.load_state_dict(attention.v_proj.state_dict())
        expected = attention(hidden)[0]
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_space_without_cells_says_so(street) -> None:
    blind = Space(**vars(small_space()) | {"cells": None})
    with pytest.raises(ModelError, match="can't say where"):
        find_place(blind, street, parse_query("red"))
    assert Located("a", Path("a")).name == "a"


def test_localize_as_a_command(in_small, tmp_path: Path) -> None:
    line = ("localize", "street.png", "red", "-o", "heat.png", "--mask", "mask.png")
    code, out, _ = in_small(*line, "--json", "-q")
    answer = json.loads(out)
    assert code == 0 and answer["schema"] == "mmx.place/1" and answer["input"] == "street.png"
    assert answer["here"] is None and answer["peak"][0] >= 60 and len(answer["box"]) == 4 and answer["score"] > 0
    assert {Image.open(tmp_path / name).size for name in ("heat.png", "mask.png")} == {(WIDTH, HEIGHT)}
    assert in_small(*line)[0] == 2 and in_small(*line, "--overwrite")[0] == 0
    code, out, _ = in_small("localize", "street.png", "blue")
    assert code == 0 and out.startswith(b"street.png: here: (")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("localize street.png", 2),
        ("localize nope.png red", 2),
        ("localize street.png nope.wav", 2),
        ("localize street.png red -o heat.jpg", 2),
        ("localize street.png red --mask mask.jpg", 2),
        ("localize street.png red --space nowhere", 2),
        ("localize low.wav red", 3),
    ],
)
def test_exit_codes(in_small, line: str, code: int) -> None:
    Path("low.wav").write_bytes(wav_bytes(Waveform(tone(), 16_000)))
    got, out, err = in_small(*line.split())
    assert got == code and b"bug" not in err and out == b"", err
