"""The protocol of a joint space, on one whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.data.edges import edges_of
from mmx.evaluation.places import Tile, mosaics, overlap, places_of
from mmx.evaluation.space import Side, measure, ranked, retrieval
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import png_bytes
from mmx.recipes.base import Measuring
from mmx.spaces.calibration import calibrate
from mmx.training.card import add_to_decoder
from tests.small_space import small_space
from tests.test_calibration import shard

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "red and blue": (250, 0, 250)}
TONES = {"red": (500,), "green": (4000,), "blue": (7000,), "red and blue": (500, 7000)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photos of four colours, in train and val, and sounds in three bands."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for number, split in enumerate(("train", "val")):
        pictures, sounds = {}, {}
        for k in range(16):
            name = list(COLOURS)[k % 4]
            pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-40, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            pictures[f"p{k}"] = png_bytes(Image.fromarray(pixels)), name
            time = np.arange(4000) / 16_000
            wave = sum(np.sin(2 * np.pi * (hertz + 40 * k) * time) for hertz in TONES[name])
            sounds[f"s{k}"] = wav_bytes(Waveform((0.3 * wave).astype(np.float32), 16_000)), name
        shard(folder / f"images-{number:03d}.tar", pictures, "png", split)
        shard(folder / f"sounds-{number:03d}.tar", sounds, "wav", split)
    return folder


def test_a_space_that_knows_everything_is_measured_so(data: Path) -> None:
    space = small_space()
    space = replace(space, calibration=calibrate(space, data))
    tables = measure(space, Measuring(data=str(data))).tables
    assert tables["naming"]["photos"]["top1"] == tables["naming"]["sounds"]["top1"] == 1.0
    assert tables["naming"]["random"]["top1"] == 0.25
    assert tables["naming"]["oracle: photos, by the mean of training photos"]["top1"] == 1.0
    assert (
        tables["none_of_these"]["photos"]["with_its_label"]
        < 0.2
        < 0.6
        < tables["none_of_these"]["photos"]["without_it"]
    )
    assert len([row for row in tables["retrieval"]]) == 6
    for row, values in tables["retrieval"].items():
        assert values["map"] > 0.9 and values["map_oracle"] >= values["map"] - 1e-6 > values["map_random"], row
    mixed = tables["one_index"]
    assert mixed["before centring"]["own_modality"] > 0.9 > mixed["as search does"]["own_modality"]
    assert mixed["oracle"]["p10"] >= mixed["as search does"]["p10"] > mixed["random"]["p10"]
    assert tables["places"]["texts"]["pointing"] > 0.9 > tables["places"]["random tile"]["pointing"]
    assert tables["places"]["texts"]["interactive"] > 0.8
    assert tables["said_to_be_there"]["texts"]["absent"] <= 0.1 < tables["said_to_be_there"]["texts"]["there"]
    assert {"silence", "noise"} <= tables["said_to_be_there"]["sounds"].keys()


def test_precision_is_what_a_loop_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, right = torch.rand(7, 30, generator=generator), torch.rand(7, 30, generator=generator) < 0.2
    right[3] = False  # nothing to find: it does not count
    found, at = ranked(scores, right), {1: [], 5: [], 10: []}
    averages = []
    for row, own in zip(scores.tolist(), right.tolist(), strict=True):
        order = [hit for _, hit in sorted(zip(row, own, strict=True), reverse=True)]
        if any(order):
            for k, values in at.items():
                values.append(sum(order[:k]) / k)
            averages.append(np.mean([sum(order[: k + 1]) / (k + 1) for k, hit in enumerate(order) if hit]))
    assert found["map"] == pytest.approx(np.mean(averages), abs=1e-6)
    assert all(found[f"p{k}"] == pytest.approx(np.mean(values), abs=1e-6) for k, values in at.items())


def test_centring_mends_a_gap_in_one_direction() -> None:
    """Two modalities with the same points, one of them moved far off: before centring everything is alike."""
    points = torch.nn.functional.normalize(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    gap = torch.tensor([0.0, 0, 0, 0, 0, 30.0])
    moved = torch.nn.functional.normalize(points + gap, dim=1)
    truth = torch.arange(12) % 4
    sides = {"image": Side([], points, truth), "text": Side([], moved, truth)}
    table = retrieval(sides, {kind: own.vectors.mean(0) for kind, own in sides.items()}, 0)
    assert table["texts → photos"]["map"] > table["texts → photos"]["map_before"] + 0.1
    assert table["photos → texts"]["map"] <= table["photos → texts"]["map_oracle"] + 1e-6


def test_mosaics_hold_four_things_and_overlap_is_of_areas() -> None:
    tiles = [Tile(Image.new("RGB", (8, 8), colour), k) for k, colour in enumerate(("red", "green", "blue", "white"))]
    (one,) = mosaics(tiles, 1, seed=1)
    assert sorted(one.concepts) == [0, 1, 2, 3]
    corner = one.picture.getpixel((200, 20))
    assert corner == tiles[one.concepts[1]].picture.getpixel((0, 0))
    mask = np.zeros((8, 8), bool)
    mask[:4, 4:] = True
    assert [overlap(mask, k) for k in range(4)] == [0, 1, 0, 0]
    mask[:, 4:] = True
    assert overlap(mask, 1) == overlap(mask, 3) == 0.5


def test_the_random_and_blind_rows_are_what_they_should_be() -> None:
    tiles = [Tile(Image.new("RGB", (8, 8), rgb), k) for k, rgb in enumerate(COLOURS.values())]
    asked = {"texts": (list(COLOURS), torch.arange(4))}
    table = places_of(small_space(), tiles, asked, 0)["places"]
    assert table["texts"]["pointing"] > 0.9 and table["an object prior"]["pointing"] == 0.25
    assert table["an object prior"]["interactive"] == 0.0 and abs(table["random tile"]["pointing"] - 0.25) < 0.03


def test_the_command_and_the_card(mmx_in_process, monkeypatch, data: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space())
    decoder = tmp_path / "decoder"
    decoder.mkdir()
    (decoder / "metrics.json").write_text('{"val": {}}')
    (decoder / "README.md").write_text("# The decoder\n\n## Data\n\nSome.\n")
    line = ("eval", "space", "--data", data, "-o", tmp_path / "report", "--decoder", decoder, "--card", "--json")
    for _ in range(2):
        code, out, err = mmx_in_process(*line)
        assert code == 0, err.decode()
    result = json.loads(out)
    assert result["task"] == "space" and result["naming"]["photos"]["top1"] == 1.0
    card = (decoder / "README.md").read_text()
    assert card.count("## Measured by `mmx eval space`") == 1 and "## Data" in card and "| photos → sounds |" in card
    assert json.loads((decoder / "metrics.json").read_text())["evaluation"]["task"] == "space"
    assert (tmp_path / "report" / "report.html").exists()
    assert mmx_in_process("eval", "space", "--data", tmp_path / "no", "-o", tmp_path / "r")[0] == 2
    assert mmx_in_process("eval", "space", "--data", data, "-o", tmp_path / "r", "--encoder", decoder)[0] == 2


def test_drawings_are_measured_where_a_space_takes_arrays(data: Path) -> None:
    def draw(arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.ones(len(arrays), 8) + torch.tensor([[float(a.mean()), *[0.0] * 7] for a in arrays])

    space = small_space()
    space = replace(space, encoders={**space.encoders, "array": draw}, prompts={**space.prompts, "array": ("{}",)})
    tables = measure(space, Measuring(data=str(data), limit=2)).tables
    assert tables["data"]["edge drawings"] == {"count": 8} and "edge drawings → sounds" in tables["retrieval"]
    assert "edge drawings" in tables["naming"] and edges_of(Image.new("RGB", (8, 8))).mode == "L"


def test_what_came_with_mmx_is_not_touched(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "README.md").write_text("# A\n")
    monkeypatch.setattr("mmx.training.card.is_shared", lambda folder: True)
    result = {"task": "space", "split": "val", "naming": {"photos": {"top1": 1.0}}}
    assert add_to_decoder(tmp_path, result, tmp_path / "report") == tmp_path / "report" / "README.md"
    assert (tmp_path / "README.md").read_text() == "# A\n" and (tmp_path / "metrics.json").read_text() == "{}"
