"""mmx eval caption: what counts as the right noun, and the tables of captions that are known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from mmx.data.shards import write_shard
from mmx.evaluation.captions import Nouns, Protocol, distinct, measure
from mmx.guided.caption import Guidance
from mmx.guided.captioner import Caption
from tests.small_data import wav
from tests.small_space import small_space

METAS = [
    {"synset": "n1", "words": "golden retriever", "concept": "dog"},
    {"synset": "n2", "words": "labrador retriever", "concept": "dog"},
    {"synset": "n3", "words": "tabby, tabby cat", "concept": "cat"},
    {"synset": "n4", "words": "teapot", "concept": None},
]


def test_the_first_thing_that_is_named_counts_and_by_its_own_names_alone():
    nouns = Nouns(METAS)
    assert nouns.names("image of two puppies and a cat", "concept", "dog")
    assert not nouns.names("image of a cat beside two puppies", "concept", "dog")
    assert nouns.names("A Golden Retriever", "synset", "n1") and nouns.names("A Golden Retriever", "concept", "dog")
    assert not nouns.names("a golden retriever", "synset", "n2") and not nouns.names("a dog", "synset", "n1")
    assert nouns.names("a kettle", "synset", "n4") and nouns.names("some teapots", "synset", "n4")
    assert nouns.first("an animal in a hotdogstand") is None  # hypernyms and parts of words are no names


def test_distinct_runs_of_words():
    assert distinct(["a dog a dog"], 1) == 0.5 and distinct(["a dog a dog"], 2) == pytest.approx(2 / 3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def photo(number: int) -> dict[str, bytes]:
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (60 * number, 10, 99)).save(buffer, "PNG")
        return {"png": buffer.getvalue(), "json": json.dumps(METAS[number % 4] | {"split": "val"}).encode()}

    sounds = [("s0", {"wav": wav(440.0), "json": json.dumps({"concept": "dog", "split": "val"}).encode()})]
    sounds += [("s1", {"wav": wav(880.0), "json": json.dumps({"concept": "cat", "split": "train"}).encode()})]
    write_shard(tmp_path / "images-000.tar", [(f"p{k}", photo(k)) for k in range(8)])
    write_shard(tmp_path / "sounds-000.tar", sounds)
    return tmp_path


class Fake:
    """Stands where a language model is."""

    end = 9

    def encode(self, text: str) -> list[int]:
        return [1] * len(text.split())

    def log_likelihood(self, rows, begun):
        return [-float(len(row) - begun) for row in rows]


def test_captions_that_name_the_right_thing_fill_the_tables(data, monkeypatch):
    space, asked = small_space(), []
    protocol = Protocol(space, Fake(), data, Guidance(), quiet=True)
    monkeypatch.setattr("mmx.evaluation.captions.Captioner", lambda space, *_, **__: _Compass(space))

    def written(media, prefix, row):
        asked.append((len(media), prefix))
        right = row.guidance.steps == Guidance().steps
        return [Caption(f"{prefix} {own.concept or 'teapot'}" if right else prefix, 0.0, 2.0) for own in media]

    monkeypatch.setattr(protocol, "written", written)
    report = measure(protocol, "val", 1)
    assert report.about["images_measured"] == 4 and report.about["sounds_measured"] == 1
    images = report.tables["images"]
    assert images["guided"]["concept of 21"] == 1.0 and images["guided"]["noun of 60"] == 0.5  # "dog" is neither
    assert images["unguided"]["concept of 21"] == 0.0 and images["guided"]["perplexity"] == pytest.approx(2.0)
    assert images["true: the label in a frame"]["concept of 21"] == 1.0
    assert images["random: another medium's caption"]["concept of 21"] < 1.0
    assert report.tables["sounds"]["guided"] == {
        "concept of 21": 1.0, "perplexity": pytest.approx(2.0), "distinct-1": 1.0, "distinct-2": 1.0,
    }  # fmt: skip
    assert {prefix for _, prefix in asked} == {"image of a", "the sound of a"}
    assert len(report.tables["ablations"]) == 6


class _Compass:
    def __init__(self, space) -> None:
        from mmx.spaces.compass import Compass, known_means

        self.space, self.compass = space, Compass(space, known_means(space))
