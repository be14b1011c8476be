"""mmx train-words and mmx show words: pairs in windows, learning, analogies, and what is near what."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mmx.data.analogies import questions
from mmx.data.windows import Windows, vocabulary, words_of_text
from mmx.errors import UsageError
from mmx.models.store import assets, verify
from mmx.models.words import Term, WordVectors, parse_terms
from mmx.training.words import analogies

TEXTS = ["a b c d e", "c a b"]


def test_words_are_counted_and_rare_ones_left_out() -> None:
    assert words_of_text("a dog's bone, 2 o'clock.") == ["a", "dog's", "bone", "o'clock"]
    assert vocabulary(["b a a", "b c a"], 2) == {"a": 3, "b": 2}


def test_pairs_are_those_of_a_window_that_shrinks_at_random() -> None:
    counts = vocabulary(TEXTS, 1)
    first, second = Windows(TEXTS, counts, window=2, often=0).pairs(40_000, torch.Generator().manual_seed(0))
    names = list(counts)
    found = Counter((names[a], names[b]) for a, b in zip(first.tolist(), second.tolist(), strict=True))
    wanted: Counter[tuple[str, str]] = Counter()
    for text in TEXTS:
        words = text.split()
        for i, a in enumerate(words):
            for j, b in enumerate(words):
                if i != j and abs(i - j) <= 2:
                    wanted[a, b] += 2 - abs(i - j) + 1  # of two windows, of 1 and of 2 words, those that hold it
    assert found.keys() == wanted.keys()
    for pair, weight in wanted.items():
        assert found[pair] / 40_000 == pytest.approx(weight / wanted.total(), abs=0.012)


def test_frequent_words_are_dropped_and_negatives_drawn_by_their_numbers_power() -> None:
    texts = ["a b"] * 90 + ["c d"] * 10
    windows = Windows(texts, vocabulary(texts, 1), window=1, often=0.05)
    first, _ = windows.pairs(20_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(first, minlength=4) / 20_000  # of a and b a part (0.05 / 0.45)^(1/2) is kept: of pairs 1/9
    assert shares[0] == pytest.approx(0.45 / 9 / (0.9 / 9 + 0.1), abs=0.02)
    drawn = windows.negatives(5000, 4, torch.Generator().manual_seed(0))
    powers = np.array([90, 90, 10, 10]) ** 0.75
    assert drawn.shape == (5000, 4)
    assert np.bincount(drawn.flatten(), minlength=4) / 20_000 == pytest.approx(powers / powers.sum(), abs=0.012)


def test_sums_and_analogies_as_they_are_typed() -> None:
    assert parse_terms("king") == [Term("king")]
    assert parse_terms("puppy - dog + cat") == [*parse_terms("dog:puppy::cat")[:1], Term("dog", -1.0), Term("cat")]
    assert parse_terms("- rain + sun") == [Term("rain", -1.0), Term("sun")]
    for wrong in ("", "dog cat", "dog -", "dog + - cat", "+"):
        with pytest.raises(UsageError):
            parse_terms(wrong)


def small() -> WordVectors:
    """Animals on one axis, their young further along another, and a word apart."""
    rows = {"dog": (1, 0, 0), "cat": (0, 1, 0), "puppy": (1, 0, 0.6), "kitten": (0, 1, 0.6), "rain": (-1, -1, 0)}
    return WordVectors.of(list(rows), np.array(list(rows.values()), float))


def test_nearest_words_are_a_naive_searchs() -> None:
    vectors = small()
    point = vectors.point(parse_terms("puppy - dog + cat"))
    cosines = {w: float(row @ point) for w, row in zip(vectors.words, vectors.table, strict=True)}
    best = sorted(set(cosines) - {"puppy", "dog", "cat"}, key=lambda w: -cosines[w])
    assert vectors.nearest(point, 2, ["puppy", "dog", "cat"]) == [(w, pytest.approx(cosines[w])) for w in best[:2]]
    assert best[0] == "kitten"
    with pytest.raises(UsageError, match="pupy") as error:
        vectors.point([Term("pupy")])
    assert "puppy" in error.value.hint


def test_analogies_are_measured_beside_the_third_word_and_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmx.data.analogies.RELATIONS", {"young": "dog:puppy cat:kitten cow:calf", "none": "x:y"})
    found = analogies(small())
    assert found["young"]["top1"] == 1.0 and found["young"]["count"] == 2 and "none" not in found
    assert found["all"]["top1"] == 1.0
    assert questions({"dog", "puppy"})["young"] == []
    assert analogies(WordVectors.of(["x"], np.ones((1, 2)))) == {}


@pytest.fixture
def train(mmx_in_process, tmp_path: Path):
    """A training on colours of things."""
    colours, things = ("red", "green", "blue", "yellow"), ("car", "boat", "bird", "tree")
    lines = [f"the {colour} {thing} is {end}" for colour in colours for thing in things for end in ("here", "gone")]
    (tmp_path / "captions.txt").write_text("\n".join(lines * 3))

    def run(name: str, steps: int, *more: object, code: int = 0) -> tuple[Path, str]:
        line = ("train-words", "--captions", tmp_path / "captions.txt", "-o", tmp_path / name, "--max-steps", steps)
        size = ("--dim", 16, "--batch-size", 64, "--often", 0, "--window", 2, "--negatives", 4, "--device", "cpu")
        found = mmx_in_process(*line, *size, "--quiet", *more)
        assert found[0] == code, found[2].decode()
        return tmp_path / name / "words", found[2].decode()

    return run


def test_words_that_are_used_alike_come_to_lie_near_each_other(train, mmx_in_process) -> None:
    folder, _ = train("run", 80, "--lr", 0.05)
    vectors = WordVectors.load(str(folder))
    near = [word for word, _ in vectors.nearest(vectors.point_of("red"), 3, ["red"])]
    assert set(near) == {"green", "blue", "yellow"}
    verify(folder)
    assert "mmx train-words" in (folder / "README.md").read_text()
    code, out, _ = mmx_in_process("show", "words", "car", "--words", folder, "--near", 3)
    assert code == 0 and {part.split()[0] for part in out.decode().partition(": ")[2].split(", ")} == {
        "boat",
        "bird",
        "tree",
    }


def test_a_run_that_was_stopped_ends_as_one_that_was_not(train) -> None:
    whole, _ = train("whole", 4)
    train("parts", 4, "--max-minutes", 0.01)
    parts, _ = train("parts", 4)
    first, second = (load_file(folder / "model.safetensors")["vectors"] for folder in (whole, parts))
    assert np.array_equal(first, second) and first.dtype == np.float16
    assert "--window" in train("whole", 4, "--window", 3, code=2)[1]
    assert "fewer than two words" in train("none", 4, "--min-count", 10_000, code=3)[1]
    assert "no such file" in train("none", 4, "--captions", "gone.txt", code=2)[1]


def test_the_starter_is_what_its_card_says(mmx_in_process, tmp_path: Path) -> None:
    measured = json.loads((assets() / "starter" / "words" / "metrics.json").read_text())["evaluation"]["analogies"]
    found = analogies(WordVectors.load())
    assert found.keys() == measured.keys()
    for name, row in measured.items():
        assert found[name] == pytest.approx(row, abs=0.01)
    assert measured["all"]["top1"] > measured["all"]["third"] > measured["all"]["random"]
    code, out, _ = mmx_in_process("show", "words", "puppy", "-", "dog", "+", "cat")
    assert code == 0 and out.decode().startswith("puppy - dog + cat: kitten ")
    code, _, err = mmx_in_process("show", "words", "kitte")
    assert code == 2 and b"did you mean kitten" in err
    assert mmx_in_process("show", "words", "dog", "-o", tmp_path / "a.png")[0] == 2
    assert mmx_in_process("show", "a.wav", "b.wav")[0] == 2 and mmx_in_process("show", "a.wav", "--near", 2)[0] == 2
    (tmp_path / "config.json").write_text("{}")
    code, _, err = mmx_in_process("show", "words", "dog", "--words", tmp_path)
    assert code == 4 and b"no vectors of words" in err
