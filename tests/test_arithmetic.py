"""What a text, a picture or a sound means, added to a sound before it is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.errors import UsageError
from mmx.media.image import png_bytes
from mmx.media.provenance import read_record
from mmx.translate.base import Blend
from mmx.translate.load import load


@pytest.fixture
def translator(debug_models):
    return load("sound2img", bridge=str(debug_models[0]), decoder=str(debug_models[1]), device="cpu")


@pytest.fixture
def fog(tmp_path: Path) -> Path:
    path = tmp_path / "fog.png"
    path.write_bytes(png_bytes(Image.new("RGB", (40, 30), (200, 200, 210))))
    return path


def test_a_shift_is_a_weighted_sum_of_directions(translator, bark: Path, sea: Path) -> None:
    point, other = (translator.point(translator.read(path)) for path in (bark, sea))
    picture = Image.new("RGB", (8, 8), "blue")
    texts = F.normalize(translator.text_points(list(translator.bridge.config.labels)).mean(0), dim=-1)
    dog = F.normalize(translator.decoder.teacher.embed_texts(["a dog"])[0] - texts, dim=-1)
    waves = F.normalize(other - texts, dim=-1)
    seen = F.normalize(translator.decoder.targets([picture])[0], dim=-1)
    shift = [Blend("a dog", 0.5), Blend(translator.read(sea), -1.0), Blend(picture, 0.3)]
    expected = F.normalize(point + 0.5 * dog - waves + 0.3 * seen, dim=-1)
    assert torch.allclose(translator.shifted(point, shift), expected, atol=1e-5)
    assert translator.shifted(point, []) is point
    with pytest.raises(UsageError, match="leave nothing"):
        translator.shifted(waves, [Blend(translator.read(sea), -1.0)])


def test_a_point_moves_toward_what_is_added_and_away_from_what_is_taken(translator, bark: Path) -> None:
    point, cat = translator.point(translator.read(bark)), translator.direction("a photo of a cat")
    more, less = (translator.shifted(point, [Blend("a photo of a cat", weight)]) for weight in (1.0, -1.0))
    assert more @ cat > point @ cat > less @ cat


def test_plus_and_minus_are_drawn_and_can_be_made_again(
    mmx_in_process, debug_options, debug_models, tmp_path: Path, bark: Path, sea: Path, fog: Path
) -> None:
    line = ("sound2img", bark, "-q", *debug_options)
    assert mmx_in_process(*line, "-o", tmp_path / "plain.png")[0] == 0
    shifts = ("--plus", "a photo of a cat", "--minus", f"0.5*{fog} - {sea}")
    assert mmx_in_process(*line, "-o", tmp_path / "shifted.png", *shifts)[0] == 0
    data = (tmp_path / "shifted.png").read_bytes()
    assert data != (tmp_path / "plain.png").read_bytes()
    inputs = read_record(data, "shifted.png")["inputs"]
    assert [(entry["role"], entry["name"], entry["weight"]) for entry in inputs[1:]] == [
        ("plus", "a photo of a cat", 1.0),
        ("minus", "fog.png", 0.5),
        ("plus", "sea.wav", 1.0),
    ]
    models = ("--bridge", debug_models[0], "--decoder", debug_models[1])
    assert mmx_in_process("reproduce", tmp_path / "shifted.png", bark, sea, fog, *models)[0] == 0


@pytest.mark.parametrize("query", ["", "nope.jpg", "-", "'a", "0*a", "a + "])
def test_what_is_no_query_is_refused_before_any_work(mmx_in_process, tmp_path: Path, bark: Path, query: str) -> None:
    for option in ("--plus", "--minus"):
        code, _, err = mmx_in_process("sound2img", bark, f"{option}={query}", "-o", tmp_path / "a.png")
        assert code == 2 and b"mmx: " in err and b"bug" not in err


def test_a_sound_that_cannot_be_read_is_named(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    line = ("sound2img", bark, "--plus", tmp_path / "broken.wav", "-o", tmp_path / "a.png", *debug_options)
    code, _, err = mmx_in_process(*line)
    assert code == 3 and b"broken.wav" in err
