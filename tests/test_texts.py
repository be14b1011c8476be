"""A text tower that is trained anew against a frozen image tower: its sentences, its targets, and its folder."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmx.data.captions import train_tokenizer
from mmx.data.looks import LOOKS, Looks
from mmx.data.sentences import EVERY_VAL, Frames, Sentence, Sentences, filled, read_captions, with_articles
from mmx.data.things import names_by_group, plural
from mmx.decoders.gan import GanDecoder
from mmx.decoders.horizon import FAR, Horizon
from mmx.decoders.teacher import Teacher, image_side
from mmx.errors import InputError, UsageError
from mmx.training.decoders import text_stage
from mmx.training.decoders.text import TextTask
from mmx.training.decoders.text_measures import temperature
from mmx.training.decoders.text_stage import SCHEDULE, TextRecipe, train_text
from mmx.training.teachers import features
from tests.tiny_spaces import gan_decoder
from tests.training_data import two_concepts

CAPTIONS = [
    "a brown dog runs over the grass",
    "two dogs are playing on a beach",
    "a man sits beside a cat on a bench",
    "a dog looks at a cat",
    "a toilet in a small room",
    "the toilet is beside a sink",
    "a man on a motorcycle in the street",
    "an old motorcycle is parked in front of a house",
] * 5
DOG, CAT = ({"synset": name, "words": name, "concept": name} for name in ("dog", "cat"))


@pytest.fixture(scope="module")
def captions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("captions") / "captions.txt"
    path.write_text("\n".join(line.capitalize() + "." for line in CAPTIONS), encoding="utf8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return two_concepts(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, captions, tmp_path_factory) -> TextRecipe:
    """A tower of two words' worth, in a decoder's folder."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = TextRecipe(
        data, folder / "run", gan_decoder(folder / "before"), (captions,), quiet=True, command="mmx train", notes="Own."
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_stage, "SCHEDULE", replace(SCHEDULE, max_steps=150, batch_size=32, lr=5e-3, ema=0.9))
        patch.setattr(text_stage, "VOCABULARY", 400)
        train_text(recipe)
    return recipe


def test_captions_become_frames_for_one_thing_and_sentences_about_others():
    frames = Frames(read_captions_of(CAPTIONS), ["dog", "cat", "orange"])
    assert set(frames.frames) == {
        "a {} runs over the grass",  # brown was of that dog
        "two {}s are playing on a beach",
        "a man sits beside a {} on a bench",
    }
    assert "a toilet in a small room" in frames.others and not any("dog" in text for text in frames.others)
    assert "motorcycle" in frames.nouns and "toilet" in frames.nouns
    assert not Frames(["an orange on a plate"], ["orange"]).others  # a fruit or a colour: of nothing certain


def read_captions_of(lines: list[str]) -> list[str]:
    return [line.lower() for line in lines]


def test_names_go_into_frames_in_their_number():
    assert filled("two {}s on a beach", "puppy", "green") == "two green puppies on a beach"
    assert [plural(name) for name in ("bus", "fox", "monkey", "lady")] == ["buses", "foxes", "monkeys", "ladies"]
    assert with_articles("a umbrella and an big a orange") == "an umbrella and a big an orange"


def test_a_things_words_are_its_own_its_everyday_ones_and_those_of_what_it_is_a_kind_of():
    groups = names_by_group([DOG, CAT, {"synset": "n1", "words": "Teapot", "concept": None}])
    assert {"dog", "puppy"} <= set(groups[frozenset({"dog"})]) and "kitten" in groups[frozenset({"cat"})]
    assert {"animal", "pet"} <= set(groups[frozenset({"dog", "cat"})])
    assert "teapot" in groups[frozenset({"n1"})] and "kettle" in groups[frozenset({"n1"})]


def test_sentences_for_val_are_not_drawn_for_training():
    lines = [f"a dog is beside number{k}x{k}" for k in range(60)] + [f"the thing{k}q is in a room" for k in range(60)]
    sentences, rng = Sentences(lines, [["dog"]]), random.Random(0)
    drawn = {sentences.draw(rng).text for _ in range(4000)}
    kept = {f"a dog is beside number{k}x{k}" for k in range(0, 60, EVERY_VAL)}
    assert not drawn & kept
    about, other = sentences.held_out(random.Random(0), 40)
    assert set(about) & kept and not drawn & set(other)


def test_a_drawn_sentence_says_what_it_is_about():
    sentences, rng = Sentences(read_captions_of(CAPTIONS), [["dog"], ["cat"]]), random.Random(1)
    seen = [sentences.draw(rng) for _ in range(500)]
    for sentence in seen:
        words = sentence.text.replace("dogs", "dog").replace("cats", "cat").split()
        assert (sentence.group == 0) == ("dog" in words) and (sentence.group == 1) == ("cat" in words)
    assert {sentence.group for sentence in seen} == {-1, 0, 1, 2}
    green = [s for s in seen if s.look == LOOKS.index("green")]
    assert green and all("green" in sentence.text for sentence in green)


def test_a_sentence_that_is_cut_off_says_what_it_did_while_some_of_the_name_is_left():
    text = "the sound of a dog that barks at two cats"
    reader = train_tokenizer([text] * 20, 400, length=32)
    at = text.index("dog")
    assert reader.begun(text, at) == 4 and reader.begun(text, 0) == 0
    names = Sentences([text], [["dog"]])
    drawn = [names.draw(random.Random(seed)) for seed in range(200)]
    assert all(s.text[s.named :].startswith("dog") for s in drawn if s.group == 0 and "dog" in s.text)

    task = TextTask.__new__(TextTask)
    task.reader, task.things = reader, 7
    whole, end, left = reader([text])[0][0].tolist(), len(reader) - 1, set()
    for seed in range(200):
        ids, mask = (part[0] for part in reader([text]))
        said = task._cut(random.Random(seed), Sentence(text, 3, named=at), ids, mask)
        kept = int(mask.sum()) - 1  # with the start
        assert ids[:kept].tolist() == whole[:kept] and ids[kept:].tolist() == [end, *[0] * (len(ids) - kept - 1)]
        assert said.group == (3 if "dog" in reader.tokenizer.decode(ids.tolist()) else 7)
        left.add(kept)
    assert left >= set(range(2, len(whole) - 1)) - {len(whole) - 2}
    ids, mask = (part[0] for part in reader([text]))
    looks = Sentence(text, 3, look=0, named=at)
    assert all(task._cut(random.Random(seed), looks, ids, mask) == looks for seed in range(50)) and mask.all()


def test_looks_are_measured():
    levels = torch.rand(200, 1, 1, 3, generator=torch.Generator().manual_seed(0)) * 255
    pixels = levels.expand(200, 8, 8, 3).byte()
    shown = [(230, 20, 20), (20, 200, 20), (40, 90, 230), (10, 10, 10), (245, 245, 245)]
    odd = torch.tensor(shown, dtype=torch.uint8)[:, None, None].expand(5, 8, 8, 3)
    noisy = torch.randint(0, 255, (1, 8, 8, 3), generator=torch.Generator().manual_seed(1)).byte()
    scores = Looks(torch.cat((pixels, noisy))).scores(torch.cat((odd, noisy)))
    colours = scores[:5, : LOOKS.index("light")]
    assert [LOOKS[k] for k in colours.argmax(1)] == ["red", "green", "blue", "black", "white"]
    assert scores[:, LOOKS.index("busy")].argmax() == 5
    assert scores[4, LOOKS.index("light")] > 0 > scores[3, LOOKS.index("light")]
    assert scores[0, LOOKS.index("warm")] > scores[2, LOOKS.index("warm")]


def test_a_long_text_is_read_at_its_end():
    reader = train_tokenizer(CAPTIONS, 320, length=32)
    ids, mask = reader(["a dog", "a man sits beside a cat on a bench and looks at the dog"])
    assert ids.shape[1] > 16 and (ids.argmax(1) == mask.sum(1) - 1).all()
    assert reader(["dog " * 90])[0].shape == (1, 32) and reader(["dog " * 90])[0].argmax() == 31


def test_only_the_texts_of_the_decoder_are_new(trained):
    folder, before = trained.run / "decoder", trained.start
    assert image_side(folder / "teacher") == image_side(before / "teacher")
    same = [path.relative_to(before) for path in before.rglob("*") if path.is_file()]
    changed = {str(path) for path in same if (folder / path).read_bytes() != (before / path).read_bytes()}
    assert changed == {
        "teacher/heads.safetensors",  # the temperature
        "teacher/text_encoder/config.json",
        "teacher/text_encoder/model.safetensors",
        "teacher/tokenizer/tokenizer.json",
        "teacher/tokenizer/tokenizer_config.json",
    }
    decoder = GanDecoder.load(folder)
    GanDecoder.load(before).spec.require(decoder.spec, bridge="of before")
    assert decoder.teacher.net.text_encoder.sizes["length"] == 32


def test_the_new_texts_name_the_photos_and_know_what_they_do_not(trained):
    found = json.loads((trained.run / "decoder" / "metrics.json").read_text())["text"]
    assert all(found["val"][f"frame_{name}"] == 1 for name in ("photo", "snow", "people", "old"))
    assert found["val"]["synonym_puppy"] == found["val"]["synonym_kitten"] == 1
    assert found["val"]["far_known"] < 0.2 < 0.6 < found["val"]["far_other"]
    card = (trained.run / "decoder" / "README.md").read_text()
    assert "mmx train" in card and "Own." in card and "frame_people" in card
    teacher = Teacher.load(trained.run / "decoder" / "teacher")
    assert teacher.are_far(["a photo of a dog", "two people looking at a kitten", "a toilet in a small room"]) == [
        False,
        False,
        True,
    ]
    assert not any(Teacher.load(trained.start / "teacher").are_far(["a toilet in a small room"]))  # nobody measured it


def test_a_second_call_resumes_and_another_recipe_is_refused(trained, captions, tmp_path, monkeypatch):
    monkeypatch.setattr(text_stage, "SCHEDULE", replace(SCHEDULE, max_steps=150, batch_size=32, lr=5e-3, ema=0.9))
    monkeypatch.setattr(text_stage, "VOCABULARY", 400)
    monkeypatch.setattr(TextTask, "loss", None)  # nothing is left to train
    monkeypatch.setattr(features, "to_pixels", None)  # and nothing to look at
    weights = trained.run / "decoder" / "teacher" / "text_encoder" / "model.safetensors"
    before = weights.read_bytes()
    train_text(trained)
    assert weights.read_bytes() == before
    other = tmp_path / "other.txt"
    other.write_text("a dog\n" * 30)
    with pytest.raises(UsageError, match="--captions"):
        train_text(replace(trained, captions=(captions, other)))
    with pytest.raises(UsageError, match="lies in the run"):
        train_text(replace(trained, start=trained.run / "decoder"))


def test_temperature_is_where_names_are_likeliest():
    texts, truth = torch.eye(4), torch.arange(4).repeat(50)
    generator = torch.Generator().manual_seed(0)
    photos = F.normalize(texts[truth] + 0.3 * torch.randn(200, 4, generator=generator), dim=1)
    noisy = F.normalize(texts[truth] + 1.5 * torch.randn(200, 4, generator=generator), dim=1)
    assert temperature(photos, texts, truth) > 2 * temperature(noisy, texts, truth)


def test_a_horizon_survives_its_folder(tmp_path):
    horizon = Horizon(torch.eye(3), 0.5)
    horizon.save(tmp_path)
    texts = F.normalize(torch.tensor([[1.0, 0.2, 0.0], [-1.0, -1.0, -1.0]]), dim=1)
    assert Horizon.load(tmp_path).is_far(texts) == [False, True]
    assert Horizon.load(tmp_path / "none") is None


def test_text2img_says_what_it_does_not_know(debug_models, mmx_in_process, tmp_path, monkeypatch):
    monkeypatch.setattr(Teacher, "are_far", lambda _self, texts: ["blimp" in text for text in texts])
    bridge, decoder = debug_models
    line = ["text2img", "a blimp", "a dog", "--bridge", bridge, "--decoder", decoder, "--json", "-o", tmp_path / "out"]
    code, out, err = mmx_in_process(*line)
    notes = [json.loads(row)["notes"] for row in out.splitlines()]
    assert code == 0 and [any(FAR in note for note in row) for row in notes] == [True, False]
    assert err.count(FAR.encode()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("text",), b"wants --init DECODER"),
        (("text", "--init", "FOLDER"), b"want --captions FILE"),
        (("text", "--init", "FOLDER", "--captions", "nowhere.txt"), b"no such file"),
        (("image", "--captions", "nowhere.txt"), b"image takes none"),
        (("text", "--teacher", "FOLDER"), b"takes none"),
    ],
)
def test_options_that_do_not_fit_are_refused(mmx_in_process, trained, tmp_path, arguments, said):
    words = [trained.start if word == "FOLDER" else word for word in arguments]
    code, _, err = mmx_in_process("train-decoder", *words, "--data", tmp_path, "-o", tmp_path / "run")
    assert code == 2 and said in err


def test_captions_must_be_text(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "none.txt").write_text("\n \n")
    for name, said in (("bad.txt", "UTF-8"), ("none.txt", "no captions")):
        with pytest.raises(InputError, match=said):
            read_captions([tmp_path / name])
