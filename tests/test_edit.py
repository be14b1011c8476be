"""Edits of pictures and faces through frozen decoders, against finite differences, known answers and round trips."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.data.photos import Photos
from mmx.decoders.face_words import KNOTS, FaceWords, age_weights, described
from mmx.decoders.load import load_decoder
from mmx.errors import InputError, ModelError
from mmx.evaluation.edit import Ask, Judged, _row, measure, traded
from mmx.guided.edit import Editor
from mmx.guided.edit_terms import WAY, Terms, Wanted, edited
from mmx.guided.held import across, on_held_shell
from mmx.guided.invert import invert, on_shell
from mmx.guided.residual import Schedule
from mmx.media.face_texts import Said, said
from mmx.media.faces import find_face
from mmx.media.provenance import read_record
from mmx.models.store import Located, verify
from mmx.nets.face import GENDERS
from mmx.spaces.load import load_space
from mmx.training.decoders.face_stage import train_face_texts
from mmx.training.decoders.text_stage import TextRecipe
from mmx.translate.base import Blend, Names, generator_for
from tests.debug import DIM, make_one_step_decoder, make_reading_faces, make_speech_decoder


def record_of(path: Path) -> dict:
    return read_record(path.read_bytes(), path.name)


def opened(folder: Path, modality: str = "image"):
    return load_decoder(Located(folder.name, folder), modality).to("cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face decoder that reads texts."""
    return make_reading_faces(tmp_path_factory.mktemp("edit") / "faces")


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_one_step_decoder(tmp_path_factory.mktemp("edit") / "one-step")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    rng = np.random.default_rng(0)
    Image.fromarray(np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def any_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is given is a face."""
    monkeypatch.setattr("mmx.guided.edit.find_face", lambda picture, name: picture)


@pytest.mark.parametrize("kind", ["faces", "generator_folder"])
def test_what_is_painted_is_what_is_decoded_and_has_gradients(kind, request):
    decoder = opened(request.getfixturevalue(kind))
    torch.manual_seed(1)
    point = on_shell(torch.randn(2, DIM), torch.full((2, DIM), 1.0)).requires_grad_()
    pixels = decoder.paint(point, generators=[generator_for(0, 0), generator_for(0, 1)])
    drawn = decoder.decode(point.detach(), generators=[generator_for(0, 0), generator_for(0, 1)])
    for own, other in zip(pixels, drawn, strict=True):
        rounded = ((own.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).detach().numpy()
        assert np.abs(rounded - np.asarray(other).astype(float)).max() <= 1
    direction = F.normalize(torch.randn(DIM), dim=0)
    slope = (torch.autograd.grad(pixels[0].square().mean(), point)[0][0] @ direction).item()

    def at(step: float) -> float:
        moved = point.detach() + step * direction * torch.tensor([[1.0], [0.0]])
        with torch.no_grad():
            return float(decoder.paint(moved, generators=[generator_for(0, 0), generator_for(0, 1)])[0].square().mean())

    assert slope == pytest.approx((at(1e-2) - at(-1e-2)) / 2e-2, rel=0.05, abs=1e-5)
    assert not any(parameter.requires_grad for net in decoder.networks() for parameter in net.parameters())


def test_a_decoder_without_gradients_says_so(tmp_path):
    decoder = opened(make_speech_decoder(tmp_path / "speech"), "sound")
    with pytest.raises(ModelError, match="no gradients"):
        decoder.paint(torch.zeros(1, 4), generators=[])


@pytest.mark.parametrize(
    ("text", "age", "gender"),
    [
        ("an old man", 72, "male"),
        ("Make her look younger", 22, "female"),
        ("a 30 year old man", 30, "male"),
        ("a 30-year-old woman", 30, "female"),
        ("a man in his 40s", 45, "male"),
        ("a middle aged person", 45, None),
        ("a portrait of a lady", None, "female"),
        ("aged 61", 61, None),
    ],
)
def test_what_a_text_says_of_a_face(text, age, gender):
    assert said(text) == Said(age, gender)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a smiling man", "nothing of 'smiling'"),
        ("a 9 year old girl", "'girl'"),
        ("aged 12", "of adults"),
        ("a man and a woman", "two faces"),
        ("a face", "says nothing"),
    ],
)
def test_what_a_face_decoder_does_not_know_is_refused(text, what):
    with pytest.raises(InputError, match=what):
        said(text)


def test_effects_of_age_and_gender_are_found_again(tmp_path):
    torch.manual_seed(2)
    ages, male = torch.randint(18, 80, (4000,)).float(), torch.rand(4000) < 0.4
    truth = torch.randn(2 * len(KNOTS), 6)
    raw = described(age_weights(ages), male.float() - 0.5) @ truth + 0.1 * torch.randn(4000, 6)
    FaceWords.fit(raw, ages, male).save(tmp_path)
    words = FaceWords.load(tmp_path)
    old_men, known = words.shift("a 70 year old man"), truth[len(KNOTS) - 1] + 0.5 * truth[-1]
    assert torch.allclose(old_men + words.mean, known, atol=0.1)
    women = words.shift("a woman")  # of typical age
    assert torch.allclose(women + words.mean, raw[~male].mean(0), atol=0.25)


def test_a_face_decoder_learns_what_texts_mean_and_stays_what_it_was(faces, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    meta = [
        {"key": str(k), "age": int(rng.integers(18, 80)), "gender": "male" if k % 2 else "female"} for k in range(80)
    ]
    pixels = torch.from_numpy(rng.integers(0, 120, (80, 96, 96, 3)).astype(np.uint8))
    pixels[1::2, :48] += 120  # what tells genders apart
    some = Photos(pixels, [about | {"split": "val" if k < 20 else "train"} for k, about in enumerate(meta)])
    monkeypatch.setattr("mmx.training.decoders.face_stage.load_photos", lambda *_: some)
    train_face_texts(TextRecipe(tmp_path, tmp_path / "run", faces, (), command="mmx train"))
    made = tmp_path / "run" / "decoder"
    measured = json.loads((made / "metrics.json").read_text())["text"]["val"]
    assert measured["gender"] > 0.9 and "| gender |" in (made / "README.md").read_text()
    assert opened(made).spec == opened(faces).spec  # voices' bridges stay valid
    verify(made)
    space = load_space(str(made), device="cpu")
    named = space.encode([Image.fromarray(p.numpy()) for p in pixels[:20]], "image") @ space.encode(["man"], "text").T
    assert named[1::2].mean() > named[::2].mean()


def test_ages_between_two_knots_share_them():
    weights = age_weights(torch.tensor([18.0, 26.0, 38.0, 90.0]))
    assert weights[0].tolist() == [1, 0, 0, 0, 0, 0] and weights[1].tolist() == [0, 1, 0, 0, 0, 0]
    assert weights[2, 2:4].tolist() == pytest.approx([0.5, 0.5]) and weights[3, -1] == 1


def sphere(point: torch.Tensor) -> torch.Tensor:
    return F.normalize(point, dim=-1)


def test_an_edit_goes_the_way_that_is_asked_for_and_nowhere_else():
    """A decoder that draws its conditioning, seen as it is."""
    torch.manual_seed(3)
    start, direction = sphere(torch.randn(1, 16)) * 4, sphere(torch.randn(16))
    point, found = edited(
        start, Wanted(direction, 0.8, keep=1.0, l2=0.0), lambda c: c, sphere, schedule=Schedule(200, 0.05)
    )
    gone = (sphere(point) - sphere(start))[0] @ direction
    assert float(gone) == pytest.approx(0.8 * WAY, abs=0.01)
    assert found.steps[-1].losses["likeness"] < 0.01 and point.norm() == pytest.approx(4.0)
    back = edited(start, Wanted(direction, -0.8, l2=0.0), lambda c: c, sphere, schedule=Schedule(200, 0.05))[0]
    assert float((sphere(back) - sphere(start))[0] @ direction) == pytest.approx(-0.8 * WAY, abs=0.01)


def test_a_small_residual_and_likeness_hold_it_back():
    torch.manual_seed(3)
    start, direction = sphere(torch.randn(1, 16)) * 4, sphere(torch.randn(16))
    entangled = torch.randn(16, 16)  # what is seen is not what is moved

    def see(point: torch.Tensor) -> torch.Tensor:
        return sphere(torch.tanh(point @ entangled))

    def of(**weights: float) -> tuple[float, float]:
        wanted = Wanted(direction, 1.5, **weights)
        point, _ = edited(start, wanted, lambda c: c, see, schedule=Schedule(150, 0.05))
        across = Terms(wanted)._across
        likeness = F.cosine_similarity(across(see(point)), across(see(start))).item()
        return float((point - start).norm()), likeness

    assert of(l2=3.0)[0] < of(l2=0.0)[0]
    assert of(keep=10.0, l2=0.0)[1] > of(keep=0.0, l2=0.0)[1]


def test_inversion_finds_what_a_picture_was_drawn_from(generator_folder):
    decoder = opened(generator_folder)
    torch.manual_seed(4)
    true = on_shell(torch.randn(1, DIM), torch.ones(1, DIM))
    photo = decoder.decode(true, generators=[generator_for(0, 0)])[0]
    paint = lambda point: decoder.paint(point, generators=[generator_for(0, 0)])  # noqa: E731
    found = invert(photo, decoder, paint, lambda pixels: F.normalize(pixels.flatten(1), dim=-1), 80)
    assert found.after < 0.6 * found.before
    none = invert(photo, decoder, paint, lambda pixels: F.normalize(pixels.flatten(1), dim=-1), 0)
    assert none.after == none.before and torch.allclose(none.conditioning, decoder.targets([photo]), atol=1e-4)


def test_a_picture_without_a_face_is_refused():
    pytest.importorskip("cv2")
    with pytest.raises(InputError, match="no face found"):
        find_face(Image.new("RGB", (96, 96), "green"), "lawn.png")


def test_a_picture_that_is_none_is_not_called_a_sound(mmx_in_process, faces, tmp_path):
    (tmp_path / "junk.png").write_bytes(b"no picture at all" * 9)
    code, _, err = run(mmx_in_process, faces, tmp_path / "junk.png", "-o", str(tmp_path / "a.png"))
    assert code == 3 and b"junk.png: not a picture" in err


def test_where_no_face_can_be_looked_for_that_is_said(mmx_in_process, faces, picture, monkeypatch, tmp_path):
    for module in ("mmx.guided.edit", "mmx.media.faces"):
        monkeypatch.setattr(f"{module}.can_find", lambda: False)
    code, _, err = run(mmx_in_process, faces, picture, "-o", str(tmp_path / "a.png"))
    assert code == 0 and b"taken for an aligned face" in err
    monkeypatch.setattr("mmx.guided.edit.can_find", lambda: True)
    code, _, err = run(mmx_in_process, faces, picture, "-o", str(tmp_path / "b.png"))
    assert code == 0 and b"taken for" not in err


def run(mmx_in_process, faces: Path, picture: Path, *more: str) -> tuple[int, bytes, bytes]:
    steps = ("--steps", "3", "--invert", "2", "--device", "cpu")
    return mmx_in_process("edit", picture, "an old man", "--decoder", faces, *steps, *more)


def test_an_edit_can_be_made_again(mmx_in_process, faces, picture, any_face, tmp_path):
    made, again = tmp_path / "old.png", tmp_path / "again.png"
    code, _, err = run(mmx_in_process, faces, picture, "-o", str(made))
    assert code == 0, err.decode()
    assert b"after inversion by" in err and b"wish 1.000 to" in err
    record = record_of(made)
    assert record["synthetic"] and record["settings"]["strength"] == 1.0
    assert [entry["role"] for entry in record["inputs"]] == ["source", "plus"]
    code, _, err = mmx_in_process("reproduce", made, picture, "--decoder", faces, "-o", again)
    assert code == 0, err.decode()
    assert again.read_bytes() == made.read_bytes()
    code, _, _ = run(mmx_in_process, faces, picture, "-o", str(tmp_path / "less.png"), "--strength", "0.1")
    assert (tmp_path / "less.png").read_bytes() != made.read_bytes()


def test_a_strip_goes_from_one_end_through_the_picture_itself_to_the_other(
    mmx_in_process, faces, picture, any_face, tmp_path
):
    code, _, err = run(mmx_in_process, faces, picture, "--strip", "-o", str(tmp_path / "strip.png"))
    assert code == 0, err.decode()
    strip = np.asarray(Image.open(tmp_path / "strip.png")).astype(float)
    assert strip.shape[:2] == (96, 7 * 96 + 6 * 2)
    tiles = [strip[:, k * 98 : k * 98 + 96] for k in range(7)]
    editor = Editor.open("edit", Names(None, None), opened(faces), Located("faces", faces))
    with Image.open(picture) as file:
        start = editor.inverted(file.convert("RGB"), 0, 0, 2).conditioning
    plain = editor.decoder.decode(start, generators=[generator_for(0, 0)])[0]
    assert np.abs(tiles[3] - np.asarray(plain)).max() <= 1
    apart = [np.abs(tile - tiles[3]).mean() for tile in tiles]
    assert apart[0] > apart[1] > apart[2] > 0 < apart[4] < apart[5] < apart[6]


def test_ctrl_c_keeps_the_best_so_far_and_it_can_be_made_again(
    mmx_in_process, faces, picture, any_face, tmp_path, monkeypatch
):
    made, see, looks = tmp_path / "old.png", Terms.likeness, []

    def likeness(terms: Terms, seen) -> torch.Tensor:
        looks.append(1)
        if len(looks) == 3:
            signal.raise_signal(signal.SIGINT)
        return see(terms, seen)

    with monkeypatch.context() as patched:
        patched.setattr(Terms, "likeness", likeness)
        code, _, _ = run(mmx_in_process, faces, picture, "-o", str(made), "--steps", "50")
    assert code == 130 and record_of(made)["settings"]["until"] == 2
    code, _, err = mmx_in_process("reproduce", made, picture, "--decoder", faces)
    assert code == 0, err.decode()


def test_a_loss_that_is_no_number_keeps_the_best_so_far(
    mmx_in_process, faces, picture, any_face, tmp_path, monkeypatch
):
    likeness, looks = Terms.likeness, []

    def broken(terms: Terms, seen) -> torch.Tensor:
        looks.append(1)
        return likeness(terms, seen) * (float("nan") if len(looks) > 2 else 1.0)

    monkeypatch.setattr(Terms, "likeness", broken)
    code, _, err = run(mmx_in_process, faces, picture, "-o", str(tmp_path / "old.png"))
    assert code == 7 and b"no number" in err and record_of(tmp_path / "old.png")["synthetic"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("{face}", 2, "what the picture is to become"),
        ("{face} smiling --decoder {faces}", 3, "knows nothing of 'smiling'"),
        ("{face} woman --strip -n 2", 2, "one row"),
        ("{face} woman --direction --space {faces}", 2, "own space"),
        ("{sound} woman --decoder {faces}", 3, "this is a sound"),
        ("{face} --sound nowhere.wav", 2, "nowhere.wav"),
        ("nowhere.png woman", 2, "nowhere.png"),
    ],
)
def test_bad_lines_are_told(mmx_in_process, faces, picture, any_face, tmp_path, line, code, says):
    names = {"face": picture, "faces": faces, "sound": Path("assets/samples/bark.wav").resolve()}
    found, _, err = mmx_in_process("edit", *line.format(**names).split(), "-o", tmp_path / "out.png", "--device", "cpu")
    assert (found, says in err.decode()) == (code, True), err.decode()
    assert not (tmp_path / "out.png").exists() and "Traceback" not in err.decode()


def test_a_picture_is_edited_toward_a_sound_and_a_sum(mmx_in_process, debug_models, picture, tmp_path, bark):
    decoder = debug_models[1]
    common = ("--decoder", decoder, "--steps", "2", "--invert", "0", "--device", "cpu")
    made = tmp_path / "out.png"
    code, _, err = mmx_in_process("edit", picture, "a dog - 0.5*'a cat'", *common, "-o", made)
    assert code == 0, err.decode()
    weights = [(entry["role"], entry["weight"]) for entry in record_of(made)["inputs"]]
    assert weights == [("source", 1.0), ("plus", 1.0), ("minus", 0.5)]
    assert json.loads(json.dumps(record_of(made)))["decoder"]["name"]


def test_what_moves_and_what_stays_is_counted():
    ask = Ask(torch.zeros(1), Image.new("RGB", (4, 4)), "", Wanted(torch.zeros(1)))
    asks = [replace(ask, old=True), replace(ask, old=False), replace(ask, male=True), replace(ask, male=False)]
    before = [Judged(1.0, False)] * 4
    after = [Judged(2.0, True), Judged(1.2, False), Judged(1.9, True), Judged(3.0, False)]
    row = _row(asks, before, after)
    assert row == {"age_moves": 0.5, "gender_stays": 0.5, "gender_moves": 1.0, "age_stays": 0.5}
    assert traded(row | {"likeness": 0.9}) == {"asked_moves": 0.75, "other_stays": 0.5, "likeness": 0.9}


@pytest.mark.parametrize(
    ("texts", "count"), [(["an old person"], 1), (["a woman"], 4), (["an old woman"], 0), (["a woman", "aged 30"], 0)]
)
def test_what_a_text_says_nothing_of_stays_as_the_teacher_reads_it(faces, texts, count):
    """`--direction` and an optimisation, against the classifier's own logits."""
    editor = Editor.open("edit", Names(None, None), opened(faces), Located("faces", faces))
    net = editor.decoder.teacher.net
    wanted = editor.wanted([Blend(text, 1.0) for text in texts])
    assert wanted.hold.shape == (count, DIM) and torch.allclose(
        wanted.hold @ wanted.hold.T, torch.eye(count), atol=1e-5
    )
    torch.manual_seed(6)
    start = on_shell(torch.randn(1, DIM), torch.full((1, DIM), 1.0))
    steps = Schedule(3, 0.02)
    for point in (editor.shifted(start, wanted, 2.0), editor.by_steps(start, wanted, steps, (0, 0))[0]):
        assert torch.allclose(point.norm(), start.norm(), atol=1e-4) and (point - start).norm() > 0.05
        logits = (net.classify(point) - net.classify(start)).detach().unflatten(-1, (2, len(net.ages)))[0]
        genders, ages = logits.mean(1), logits.mean(0)
        if count == 1:
            assert torch.allclose(genders[0], genders[1], atol=1e-4)
        if count == 4:
            assert torch.allclose(ages, ages.mean().expand(len(ages)), atol=1e-4)


def test_the_direction_goes_half_of_how_far_a_face_is_from_the_mean_and_steps_begin_about_where_that_is_drawn(
    faces, monkeypatch
):
    """Of 1 in the conditioning a decoder of faces draws .8, so that steps begin on both sides of .5 / .8."""
    editor = Editor.open("edit", Names(None, None), opened(faces), Located("faces", faces))
    torch.manual_seed(9)
    start = on_shell(torch.randn(1, DIM), torch.full((1, DIM), 1.0))
    editor.centre = torch.randn(DIM) / 2
    wanted = editor.wanted([Blend("a woman", 1.0)], strength=0.7)

    def gone(share: float) -> torch.Tensor:
        return wanted.held(start + share * (start - editor.centre).norm() * wanted.direction, start)

    assert torch.allclose(editor.shifted(start, wanted, 1.0), gone(0.5), atol=1e-6)
    assert torch.allclose(editor.shifted(start, wanted, -2.0), gone(-1.0), atol=1e-6)
    found = {}
    monkeypatch.setattr("mmx.guided.edit.edited", lambda *_, begins, **__: found.update(begins=begins))
    editor.by_steps(start, wanted, Schedule(3, 0.02), (0, 0))
    for point, share in zip(found["begins"], (0.3125, 0.46875, 0.625, 0.78125), strict=True):
        assert torch.allclose(point, gone(0.7 * share), atol=1e-6)


def test_a_held_shell_keeps_the_norm_and_what_is_held():
    torch.manual_seed(7)
    like, hold = torch.randn(3, 8), torch.eye(8)[:2]
    point = on_held_shell(like + torch.randn(3, 8), like, hold)
    assert torch.allclose(point.norm(dim=-1), like.norm(dim=-1)) and torch.allclose(point[:, :2], like[:, :2])
    assert across(torch.ones(8), hold).tolist() == pytest.approx([0, 0] + [6**-0.5] * 6)
    moved = like + torch.randn(3, 8)
    assert torch.allclose(on_held_shell(moved, like, torch.zeros(0, 8)), on_shell(moved, like))


def test_an_edit_begins_where_most_of_what_is_asked_for_is_seen_already():
    """And from the start itself where no point is nearer."""
    torch.manual_seed(8)
    start, direction = sphere(torch.randn(1, 16)) * 4, sphere(torch.randn(16))
    near, far = start + 2 * direction, start - 2 * direction
    wanted, schedule = Wanted(direction, 0.8, l2=0.0), Schedule(0, 0.02)

    def of(*begins: torch.Tensor) -> torch.Tensor:
        return edited(start, wanted, lambda c: c, sphere, schedule=schedule, begins=begins)[0]

    assert torch.allclose(of(far, near), on_shell(near, start), atol=1e-5)
    assert torch.allclose(of(far), start, atol=1e-5) and torch.allclose(of(), start, atol=1e-5)


def test_the_protocol_measures_each_way_of_editing_and_what_l2_trades(faces, tmp_path, monkeypatch):
    """The judge here tells a face's gender by whether it is bright, and its age not at all."""
    bright = torch.arange(12) % 2 * 120
    pixels = (torch.rand(12, 96, 96, 3, generator=torch.Generator().manual_seed(0)) * 120).byte()
    pixels += bright[:, None, None, None].byte()
    meta = [{"key": str(k), "age": 20 + 4 * k, "gender": GENDERS[k % 2], "split": "val"} for k in range(12)]

    def judge(pictures) -> tuple[torch.Tensor, None]:
        male = torch.tensor([float(np.asarray(picture).mean() > 120) for picture in pictures])
        logits = torch.zeros(len(male), 2, 5)
        logits[:, 1] = 20 * male[:, None] - 10
        return logits.flatten(1), None

    judge.name = "bright"
    for name, value in {"load_photos": lambda *_: Photos(pixels, meta), "judge_for": lambda *_, **__: judge}.items():
        monkeypatch.setattr(f"mmx.evaluation.edit.{name}", value)
    for name, value in {"STEPS": 1, "INVERT": 0, "FACES": 1, "AT_ONCE": 3}.items():
        monkeypatch.setattr(f"mmx.evaluation.edit.{name}", value)
    editor = Editor.open("edit", Names(None, None), opened(faces), Located("faces", faces))
    report = measure(editor, SimpleNamespace(data=tmp_path, split="val", limit=None, seed=0))
    rows = report.tables["edits"]
    counts = {name: row.get("count") for name, row in rows.items()}
    assert {counts[name] for name in counts if name.startswith("edit")} == {4}
    assert {counts[name] for name in ("--direction", "no edit", "no edit, other noise")} == {12}
    assert counts["two different faces"] is None
    assert rows["no edit, other noise"]["likeness"] < 1 - 1e-3
    assert rows["no edit"]["age_stays"] == 1 and rows["no edit"]["age_moves"] == 0
    assert rows["no edit"]["likeness"] == pytest.approx(1, abs=1e-5)
    assert rows["--direction"]["likeness"] < rows["no edit"]["likeness"]
    assert list(report.tables["l2"]) == ["0", "0.05", "0.2", "0.5", "2"]
    assert report.tables["l2"]["0.05"]["likeness"] == rows["edit"]["likeness"]
    assert [len(example.results) for example in report.examples] == [8] * 4
    assert report.tables["judge_on_real_faces"]["real faces"]["gender"] == 1
