"""Arrays in a joint space, and what a space says of texts that it knows nothing of."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.bridges.base import BridgeConfig
from mmx.bridges.points import PointBridge
from mmx.decoders.load import load_decoder
from mmx.errors import ModelError, UsageError
from mmx.media.arrays import read_array
from mmx.models.store import Located, seal
from mmx.spaces.base import MODALITIES, Calibration
from mmx.spaces.compass import known_means
from mmx.spaces.index import Index
from mmx.spaces.indexing import update
from mmx.spaces.load import load_space, load_space_anew
from mmx.spaces.query import Term, parse_query
from mmx.spaces.search import Searcher
from tests.small_space import small_space


@pytest.fixture
def drawings(tmp_path: Path, debug_models) -> Path:
    """A bridge from maps into the debug decoder's space, random."""
    torch.manual_seed(0)
    spec = load_decoder(Located("decoder", debug_models[1]), "image").spec.as_dict()
    kind = {"axes": 2, "channels": 1, "size": 32, "mean": [0.0], "std": [100.0]}
    config = BridgeConfig(
        "array2img",
        spec,
        sources=("array",),
        architecture="array",
        sizes={"axes": 2, "inputs": 1},
        channels=(8, 8),
        array=kind,
    )
    PointBridge(config).half().save_pretrained(tmp_path / "drawings")
    seal(tmp_path / "drawings")
    return tmp_path / "drawings"


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:30, 12] = 255
    Image.fromarray(pixels).save(tmp_path / "sketch.png")
    return tmp_path / "sketch.png"


def test_a_space_with_arrays_searches_what_it_held_before(
    debug_models, drawings: Path, sketch: Path, tmp_path: Path
) -> None:
    decoder = str(debug_models[1])
    plain, more = (load_space(decoder, bridge=b, device="cpu") for b in (None, str(drawings)))
    assert "array" in more.modalities and plain.fingerprint in more.extends != plain.fingerprint
    update(tmp_path / "a.idx", plain, [sketch])  # a picture is a picture
    index = Index.open(tmp_path / "a.idx")
    assert index.counts == {"image": 1, "sound": 0, "text": 0, "array": 0}
    hits = Searcher(index, more).top(Searcher(index, more).query(parse_query(f"array:{sketch} + 'a dog'")), 3)
    assert [hit.row["modality"] for hit in hits] == ["image"]
    with pytest.raises(ModelError, match="not of"):
        update(tmp_path / "a.idx", more, [sketch])  # but its own rows belong into an index of its own
    np.save(tmp_path / "other.npy", np.ones((30, 30)))
    assert update(tmp_path / "b.idx", more, [sketch, tmp_path / "other.npy"]).rows == 2
    with pytest.raises(ModelError, match="not of"):
        Searcher(Index.open(tmp_path / "b.idx"), plain)


def test_the_mean_of_arrays_is_what_their_bridge_knows(debug_models, drawings: Path, sketch: Path) -> None:
    """Else that of pictures, where that was measured."""
    number = MODALITIES.index("array")
    plain = load_space(str(debug_models[1]), bridge=str(drawings), device="cpu")
    calibrated = replace(plain, calibration=Calibration(plain.fingerprint, {"image": [0.25] * plain.dim}))
    assert not known_means(plain)[number].any() and (known_means(calibrated)[number] == 0.25).all()
    bridge = PointBridge.load(drawings)
    mean = bridge.point(read_array(sketch, "sketch")).tolist()
    measured = PointBridge(replace(bridge.config, mean=tuple(mean)))
    measured.load_state_dict(bridge.state_dict())
    measured.half().save_pretrained(drawings)
    seal(drawings)
    known = load_space_anew(str(debug_models[1]), bridge=str(drawings), device="cpu")
    assert torch.allclose(known_means(replace(known, calibration=calibrated.calibration))[number], torch.tensor(mean))


def test_arrays_as_commands(
    mmx_in_process, debug_models, drawings: Path, sketch: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("map.npy", np.full((20, 20), 7))
    models = ("--space", debug_models[1], "--bridge", drawings)
    code, out, err = mmx_in_process("embed", "map.npy", *models, "--json", "-q")
    assert code == 0 and json.loads(out)["modality"] == "array", err.decode()
    code, out, err = mmx_in_process("tag", "map.npy", "--labels", "a,b", *models, "--json", "-q")
    assert code == 0 and json.loads(out)["modality"] == "array", err.decode()
    assert mmx_in_process("index", "map.npy", "sketch.png", "-o", "my.idx", *models)[0] == 0
    line = (
        "search",
        "my.idx",
        "array:sketch.png",
        *models,
        "--json",
        "-q",
        "--modality",
        "array",
        "--sheet",
        "hits.png",
    )
    code, out, err = mmx_in_process(*line)
    assert code == 0 and [hit["path"] for hit in json.loads(out)["hits"]] == ["map.npy"], err.decode()
    np.save("colours.npy", np.zeros((3, 20, 20)))
    assert mmx_in_process("embed", "colours.npy", *models, "--json")[0] == 3
    assert mmx_in_process("embed", "map.npy", "--space", debug_models[1], "--json")[0] == 4


def test_a_bridge_from_something_else_is_refused(debug_models, speech_models) -> None:
    with pytest.raises((UsageError, ModelError)):
        load_space(str(debug_models[1]), bridge=str(speech_models[0]), device="cpu")


def test_a_query_may_name_an_array(sketch: Path) -> None:
    assert parse_query(f"0.5*array:{sketch}") == [Term("array", str(sketch), 0.5)]
    with pytest.raises(UsageError, match="no such file"):
        parse_query("array:nowhere.png")
    assert parse_query("'array:nowhere.png'")[0].kind == "text"


def test_old_shards_have_nothing_of_a_younger_modality(tmp_path: Path) -> None:
    """Their sums have a row less."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    update(tmp_path / "a.idx", small_space(), [tmp_path / "red.png"])
    path = tmp_path / "a.idx" / "000000" / "sums.npy"
    buffer = io.BytesIO()
    np.save(buffer, np.load(path)[:3])
    path.write_bytes(buffer.getvalue())
    assert Index.open(tmp_path / "a.idx").sums.shape == (4, 8)
    hits = Searcher(Index.open(tmp_path / "a.idx"), small_space()).top(torch.eye(8)[3], 1)
    assert len(hits) == 1


def test_tag_and_search_say_what_is_far(mmx_in_process, monkeypatch, tmp_path: Path) -> None:
    space = replace(small_space(), are_far=lambda texts: ["tax" in text for text in texts])
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: space)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("red.png")
    code, out, err = mmx_in_process("tag", "red.png", "--labels", "red,tax law", "--json")
    assert code == 0 and json.loads(out)["far"] == ["tax law"] and err.count(b"far from everything") == 1
    assert mmx_in_process("index", "red.png", "-o", "my.idx", "-q")[0] == 0
    code, out, err = mmx_in_process("search", "my.idx", "red + 'tax law'", "--json")
    assert code == 0 and json.loads(out)["far"] == ["tax law"] and b"tax law: far from everything" in err
    code, out, err = mmx_in_process("search", "my.idx", "red", "--json")
    assert json.loads(out)["far"] == [] and b"far" not in err
