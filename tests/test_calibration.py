"""What of a space is measured, and what it lets the commands say."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.decoders.base import fingerprint
from mmx.errors import UsageError
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import png_bytes
from mmx.models.store import digest_of
from mmx.spaces.base import MODALITIES, Calibration, Space, Threshold
from mmx.spaces.calibration import (
    DRAWS,
    FALSE,
    HISSES,
    SURE,
    as_json,
    calibrate,
    find_calibration,
    hissing,
    kept_at,
    safe_level,
)
from mmx.spaces.compass import known_means
from mmx.spaces.place import find_place
from mmx.spaces.query import parse_query
from mmx.spaces.tags import Tagger, evidence
from tests.conftest import tone
from tests.small_space import small_space

COLOURS = ("red", "green", "blue")


def shard(path: Path, samples: dict[str, tuple[bytes, str]], suffix: str, split: str) -> None:
    with tarfile.open(path, "w") as tar:
        for key, (payload, concept) in samples.items():
            meta = json.dumps({"concept": concept, "split": split}).encode()
            for name, data in ((f"{key}.{suffix}", payload), (f"{key}.json", meta)):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures with a coloured part, and sounds of three heights, by the colours' names."""
    folder = tmp_path / "data"
    folder.mkdir()
    pictures, sounds = {}, {}
    for number in range(9):
        name = COLOURS[number % 3]
        picture = Image.new("RGB", (64, 64), (30, 30, 30))
        picture.paste(name, (16 * (number % 4), 0, 64, 64))
        pictures[f"p{number}"] = png_bytes(picture), name
        sounds[f"s{number}"] = wav_bytes(Waveform(tone(0.3, 300 + 2500 * (number % 3) + number), 16_000)), name
    shard(folder / "images-000.tar", pictures, "png", "val")
    shard(folder / "sounds-000.tar", sounds, "wav", "val")
    return folder


@pytest.fixture
def measured(data: Path) -> Space:
    space = small_space()
    return replace(space, calibration=calibrate(space, data))


@pytest.fixture
def in_small(mmx_in_process, monkeypatch, tmp_path: Path) -> Callable[..., tuple[int, bytes, bytes]]:
    monkeypatch.chdir(tmp_path)

    def load(*_, **__) -> Space:
        space = small_space()
        return replace(space, calibration=find_calibration(tmp_path / "model", space.fingerprint))

    monkeypatch.setattr("mmx.spaces.load.load_space", load)
    return mmx_in_process


def test_means_and_thresholds_are_those_of_the_data(measured: Space, data: Path) -> None:
    found = measured.calibration
    assert found.fingerprint == measured.fingerprint and set(found.means) == {"image", "sound", "text"}
    assert found.tags.keys() == {"image", "sound"} and found.places.keys() == {"text", "sound"}
    assert found.places["text"].absent <= 0.11 and found.places["text"].there > 0.9
    assert found.tags["image"].there > found.tags["image"].absent
    means = known_means(measured)
    for modality, mean in found.means.items():
        assert torch.allclose(means[MODALITIES.index(modality)], torch.tensor(mean))
    with pytest.raises(UsageError, match="no media of two and more concepts in the split test"):
        calibrate(small_space(), data, split="test")


def test_noise_is_not_shown_by_more_pictures_than_absent_things(measured: Space, data: Path, monkeypatch) -> None:
    """Where a space hears in noise what many pictures show, sounds have to be likelier to be there."""

    def heard_as(noise: torch.Tensor) -> dict[str, Threshold]:
        monkeypatch.setattr("mmx.spaces.calibration.hissing", lambda space: noise.expand(3, -1))
        return calibrate(small_space(), data).places

    red = measured.encode(["red"], "text")
    nowhere, shown = heard_as(-red), heard_as(red)
    assert nowhere["text"] == shown["text"] and shown["sound"].at > nowhere["sound"].at
    noise = hissing(measured)
    assert noise.shape == (HISSES, measured.dim)


def scored(seed: int, pictures: int, queries: int) -> np.ndarray:
    """Of a population in which some pictures and some queries are high with whatever they meet."""
    rng = np.random.default_rng(seed)
    of_each = rng.standard_normal((pictures, 1)) + rng.standard_normal((1, queries))
    return of_each + rng.standard_normal((pictures, queries))


def test_a_level_that_is_safe_is_so_on_pictures_and_queries_not_seen() -> None:
    """The plain quantile of as many is exceeded on the other halves in about every second draw."""
    exceeded = {"safe": 0, "plain": 0}
    for seed in range(20):
        whole, absent = scored(seed, 120, 60), np.ones((60, 30), bool)
        mine, others = whole[:60, :30], whole[60:, 30:]
        levels = {"safe": safe_level(mine, absent), "plain": float(np.quantile(mine, 1 - FALSE))}
        assert levels["safe"] > levels["plain"] and (mine > levels["safe"]).mean() > 0.02
        for name, level in levels.items():
            exceeded[name] += (others > level).mean() > FALSE
    assert exceeded["safe"] <= 4 < 8 <= exceeded["plain"]


def test_the_safe_level_is_that_of_a_naive_bootstrap() -> None:
    """Which makes each drawn table and sorts it; what is not absent does not count."""
    scores, absent = scored(3, 12, 9), np.random.default_rng(4).random((12, 9)) < 0.8
    rng, levels = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = [rng.multinomial(count, np.full(count, 1 / count)) for count in (12, 9)]
        rows, columns = (np.repeat(np.arange(len(own)), own) for own in drawn)
        there = np.sort(scores[np.ix_(rows, columns)][absent[np.ix_(rows, columns)]])[::-1]
        levels.append(there[int(FALSE * len(there))])
    assert safe_level(scores, absent) == sorted(levels)[math.ceil(SURE * (DRAWS - 1))]


def test_tag_says_none_of_these_only_where_that_was_calibrated(measured: Space) -> None:
    vector = measured.encode([Image.new("RGB", (8, 8), "red")], "image")[0]
    assert Tagger(small_space()).none_of_these(vector, "image") is None
    assert Tagger(measured, ["red"]).none_of_these(vector, "image") is False
    assert Tagger(measured, ["blue"]).none_of_these(vector, "image") is True
    only = replace(measured, calibration=replace(measured.calibration, tags={}))
    assert Tagger(only, ["blue"]).none_of_these(vector, "image") is None


def test_localize_says_not_here_only_where_that_was_calibrated(measured: Space) -> None:
    picture = Image.new("RGB", (64, 64), (20, 160, 20))
    picture.paste("red", (32, 32, 64, 64))
    assert find_place(measured, picture, parse_query("red")).here is True
    assert find_place(measured, picture, parse_query("blue")).here is False


def test_a_calibration_is_of_one_space_and_no_part_of_it(tmp_path: Path, debug_models) -> None:
    import shutil

    folder = tmp_path / "decoder"
    shutil.copytree(debug_models[1], folder)
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    before = fingerprint(folder, (".",)), digest_of(folder)
    known = Calibration("a" * 64, {"text": [0.5]}, {"image": Threshold(0.1, 0.9, 0.2)})
    (folder / "calibration.json").write_bytes(as_json(known))
    assert (fingerprint(folder, (".",)), digest_of(folder)) == before
    assert find_calibration(folder, "a" * 64) == known and find_calibration(folder, "b" * 64) is None
    (folder / "calibration.json").write_text("{")
    assert find_calibration(folder, "a" * 64) is None


def test_calibrate_as_a_command(in_small, tmp_path: Path, data: Path) -> None:
    Image.new("RGB", (64, 64), "red").save("red.png")
    line = ("tag", "red.png", "--labels", "blue", "--json", "-q")
    assert json.loads(in_small(*line)[1])["none_of_these"] is None
    code, out, err = in_small("calibrate", data, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["schema"] == "mmx.calibrated/1" and b"tags, image: from" in err
    assert answer["places"]["text"]["absent"] <= 0.11
    kept = kept_at(small_space().fingerprint)
    assert Path(answer["output"]) == kept and json.loads(in_small(*line)[1])["none_of_these"] is True
    assert b"none of these; nearest: blue 1.00" in in_small(*line[:4])[1]
    kept.unlink()  # the cache is the session's
    assert in_small("calibrate", data, "-o", tmp_path / "model" / "calibration.json", "-q")[0] == 0
    assert json.loads(in_small(*line)[1])["none_of_these"] is True
    assert in_small("calibrate", data, "-o", tmp_path / "model" / "calibration.json")[0] == 2
    assert in_small("calibrate", tmp_path / "no")[0] == 2
    assert in_small("calibrate", data, "-o", "a.txt")[0] == 2
    assert in_small("calibrate", data, "--split", "test")[0] == 2


def test_evidence_is_the_best_label_and_a_little_of_the_others() -> None:
    """Against a naive sum; equal labels add log(K) / scale to one of them, and of one label there is nothing to add."""
    similar = [0.5, 0.2, -0.1]
    naive = math.log(sum(math.exp(10 * value) for value in similar)) / 10
    assert float(evidence(torch.tensor(similar), 10.0)) == pytest.approx(naive, abs=1e-6)
    assert float(evidence(torch.tensor([0.3] * 8), 20.0)) == pytest.approx(0.3 + math.log(8) / 20, abs=1e-6)
    assert float(evidence(torch.tensor([0.3]), 20.0)) == pytest.approx(0.3, abs=1e-6)


def test_a_calibration_of_another_version_is_not_heeded(tmp_path: Path, measured: Space) -> None:
    """Its thresholds were of another measure."""
    text = as_json(measured.calibration)
    (tmp_path / "calibration.json").write_bytes(text)
    assert find_calibration(tmp_path, measured.fingerprint) is not None
    (tmp_path / "calibration.json").write_bytes(text.replace(b"calibration/2", b"calibration/1"))
    assert find_calibration(tmp_path, measured.fingerprint) is None
