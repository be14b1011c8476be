"""mmx train-lm: what it learns from, that it learns, resumes to the same bits, and writes what the library reads."""

from __future__ import annotations

import io
import json
import math
import random
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmx.data.language import Corpus, Named, is_held_out, photo_names
from mmx.models.store import verify
from tests.small_language import small_reader

CAPTIONS = [f"a {colour} {thing} is on the {place}" for colour in ("red", "green", "blue", "small", "big")
            for thing in ("car", "dog", "bird", "boat") for place in ("road", "table", "grass", "water")]  # fmt: skip


def test_a_caption_is_held_out_however_often_it_is_there_and_never_drawn():
    corpus = Corpus(
        CAPTIONS * 3, [Named(["zebra"], [0, 1, 2]), Named(["yak", "ox"], [0, 1, 2]), Named(["dog"], [0, 1, 2])]
    )
    held = {caption for caption in CAPTIONS if is_held_out(caption)}
    assert held and set(corpus.val) == held and not held & set(corpus.train)
    rng = random.Random(0)
    drawn = [corpus.draw(rng) for _ in range(400)]
    assert not any(sentence.endswith(caption) for sentence in drawn for caption in held)
    assert {"zebra", "yak", "ox"} <= {word.rstrip("s") for sentence in drawn for word in sentence.split()}
    assert not any("photo of a photo" in s or "of a photo of" in s for s in drawn)


def test_names_are_said_as_often_as_people_say_them_and_captions_begin_with_them():
    corpus = Corpus(CAPTIONS, [Named(["bovine", "car"], [0, 1]), Named(["zebra"], [0, 1])])
    rng = random.Random(0)
    drawn = [corpus.draw(rng) for _ in range(4000)]
    counts = {name: sum(name in sentence for sentence in drawn if "road" not in sentence) for name in ("bovine", "car")}
    times = math.sqrt(1 + sum("car" in caption for caption in corpus.train))
    assert 0.5 * times < counts["car"] / counts["bovine"] < 4 * times  # real captions are of cars, too
    opened = [sentence for sentence in drawn if sentence.startswith(("image of a ", "the sound of a "))]
    named = sum(any(name in sentence for name in ("bovine", "zebra")) for sentence in opened)
    assert named > 1.5 * sum(any(name in sentence for name in ("dog", "bird", "boat")) for sentence in opened)


def test_what_is_said_of_a_thing_is_what_captions_say_of_it_or_of_its_kin():
    lines = ["a dog barks"] * 30 + ["a car is parked"] * 30 + ["a cat meows"]
    things = [Named(["dog"], [0, 1, 3]), Named(["cat"], [0, 1, 3]), Named(["car"], [2]), Named(["yak"], [0, 1, 3])]
    corpus = Corpus(lines, things)
    drawn = set(corpus.named(random.Random(0), 3000))
    assert {"a dog barks", "a dog meows", "a cat meows", "a yak barks", "a yak meows", "a car is parked"} <= drawn
    assert not drawn & {"a car barks", "a car meows", "a dog is parked", "a yak is parked"}
    barking = sum("barks" in sentence for sentence in corpus.named(random.Random(1), 3000) if "dog" in sentence)
    meowing = sum("meows" in sentence for sentence in corpus.named(random.Random(1), 3000) if "dog" in sentence)
    assert barking > 10 * meowing > 0


def test_sounds_are_said_like_captions_of_sounds_and_pictures_like_those_of_pictures():
    heard = [f"a {thing} {verb}s loudly" for thing in ("dog", "cat") for verb in ("bark", "howl", "growl", "purr")]
    seen = [f"a {thing} {verb}s in a room" for thing in ("dog", "cat") for verb in ("sit", "stand", "walk", "sleep")]
    corpus = Corpus(heard + seen, [Named(["dog", "yak"], [0, 1]), Named(["cat"], [0, 1])], heard)
    rng = random.Random(0)
    drawn = {corpus.draw(rng) for _ in range(4000)}
    of_sounds = [sentence for sentence in drawn if "sound of" in sentence]
    of_pictures = [sentence for sentence in drawn if sentence.startswith(("image of", "a photo of a yak"))]
    assert any("loudly" in sentence for sentence in of_sounds) and any("room" in sentence for sentence in of_pictures)
    assert not any("room" in sentence for sentence in of_sounds)
    assert not any("loudly" in sentence for sentence in of_pictures)


def test_photos_of_a_kind_are_kin(tmp_path):
    metas = [{"synset": name, "words": name, "concept": name, "split": "train"} for name in ("dog", "cat", "train")]
    with tarfile.open(tmp_path / "images-000.tar", "w") as tar:
        for number, meta in enumerate(metas):
            for suffix, data in (("json", json.dumps(meta).encode()), ("jpg", b"")):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    things = photo_names(tmp_path)
    kin = {frozenset(thing.names) & {"dog", "cat", "train"}: thing.kin for thing in things}
    numbers = {name: k for k, thing in enumerate(things) for name in ("dog", "cat", "train") if name in thing.names}
    assert kin[frozenset({"dog"})] == kin[frozenset({"cat"})] == sorted({numbers["dog"], numbers["cat"]})
    assert kin[frozenset({"train"})] == [numbers["train"]]


def test_counting_gives_what_is_counted_by_hand():
    from mmx.training.language import counted

    reader = small_reader()
    found = counted(reader, ["red car", "red dog"], ["red car"])
    tokens = [t for t in reader.tokenizer.encode("red car").ids if t]
    rows = [[t for t in reader.tokenizer.encode(text).ids if t] for text in ("red car", "red dog")]
    after = [t for row in rows for t in row[1:]]
    ones = [(after.count(t) + 1) / (len(after) + len(reader)) for t in tokens[1:]]
    assert found["unigram"] == pytest.approx(math.exp(-sum(map(math.log, ones)) / len(ones)))
    pairs = [pair for row in rows for pair in pairwise(row)]
    logs = []
    for first, second, one in zip(tokens, tokens[1:], ones, strict=False):
        seen = [b for a, b in pairs if a == first]
        logs.append(math.log((max(seen.count(second) - 0.75, 0) + 0.75 * len(set(seen)) * one) / len(seen)))
    assert found["bigram"] == pytest.approx(math.exp(-sum(logs) / len(logs)))


@pytest.fixture
def train(mmx_in_process, tmp_path: Path):
    """A training of a model of one small layer."""
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS * 3))
    size = ("--layers", 1, "--width", 64, "--length", 24, "--vocabulary", 320, "--batch-size", 8, "--device", "cpu")

    def run(name: str, steps: int, *more: object, code: int = 0) -> tuple[Path, str]:
        words = (
            "train-lm",
            "--captions",
            tmp_path / "captions.txt",
            "-o",
            tmp_path / name,
            *size,
            "--max-steps",
            steps,
        )
        found = mmx_in_process(*words, "--quiet", *more)
        assert found[0] == code, found[2].decode()
        return tmp_path / name / "lm", found[2].decode()

    return run


def test_it_learns_more_than_counting_pairs_and_the_library_reads_it(train):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = train("run", 120, "--lr", 0.01)
    measured = json.loads((folder / "metrics.json").read_text())["val"]
    assert measured["perplexity"] < measured["bigram"] < measured["unigram"]
    verify(folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a red car", return_tensors="pt")["input_ids"][:, :-1]
    assert int(ids[0, 0]) == model.config.bos_token_id == 1
    made = model.float().generate(ids, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(made[0], skip_special_tokens=True).strip().startswith("a red car is on the ")
    assert int(made[0, -1]) == model.config.eos_token_id
    card = (folder / "README.md").read_text()
    assert "bigram" in card and "mmx train-lm" in card


def test_a_run_that_was_stopped_ends_as_one_that_was_not(train):
    whole, _ = train("whole", 6)
    train("parts", 6, "--max-minutes", 0.01)
    parts, _ = train("parts", 6)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_another_recipe_on_its_folder_is_refused_and_init_starts_from_weights(train, tmp_path):
    folder, _ = train("first", 2)
    assert "--width" in train("first", 2, "--width", 128, code=2)[1]
    before = load_file(folder / "model.safetensors")
    after = load_file(train("second", 1, "--init", folder, "--lr", 0.0)[0] / "model.safetensors")
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--width", 100], "multiple of 64"),
        (["--tokenizer", "starter"], "leave one out"),
        (["--init", "gone"], "no model folder"),
        (["--data", "gone"], "no such folder"),
        (["--captions", "gone.txt"], "no such file"),
    ],
)
def test_what_makes_no_sense_is_refused(train, more, said):
    assert said in train("run", 1, *more, code=2)[1]
