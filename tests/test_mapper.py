"""`mmx train-mapper`: one text's edit of any picture in one pass, against a known answer, a kill, and misuse."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from mmx.bridges.base import BridgeConfig
from mmx.bridges.mapper import Mapper
from mmx.data.photos import Photos
from mmx.decoders.base import ConditioningSpec
from mmx.guided.edit_terms import WAY, Terms, Wanted
from mmx.media.provenance import read_record
from mmx.models.store import verify
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig
from mmx.training.mapper import MapperTask
from tests.debug import make_bridge, make_one_step_decoder, make_reading_faces

TEXT = "an old man"


def blank(dim: int, mean_norm: float) -> Mapper:
    spec = ConditioningSpec("known", (dim,), mean_norm, "f" * 64).as_dict()
    config = BridgeConfig("edit", spec, {TEXT: TEXT}, architecture="mapper", sizes={"width": 64, "depth": 3})
    return Mapper(config)


def test_it_learns_to_go_the_way_that_is_asked_for_from_points_that_it_never_saw(tmp_path: Path) -> None:
    """Through a decoder that draws its conditioning, which is seen as it is."""
    torch.manual_seed(0)
    points = F.normalize(torch.randn(232, 16), dim=-1)
    direction = F.normalize(torch.randn(16), dim=0)
    pictures = [Image.new("RGB", (4, 4))]
    editor = SimpleNamespace(
        decoder=SimpleNamespace(paint=lambda points, generators: points, decode=lambda *_, **__: pictures),
        space=SimpleNamespace(see=lambda pixels: F.normalize(pixels - 0.5, dim=-1)),
    )  # fmt: skip
    terms = Terms(Wanted(direction, 0.8, keep=1.0, l2=0.0))
    mapper = blank(16, 1.0)
    assert torch.allclose(mapper.edited(points), points, atol=1e-6)  # before the first step
    task = MapperTask(mapper, editor, terms, points[:200], points[200:])
    config = LoopConfig(150, 32, 3e-3, warmup=10, ema=0.9, bf16=False, validate_steps=150)
    found = Run(task, config, tmp_path).fit(quiet=True)
    assert found["val_wish"] < 0.1 and found["val_likeness"] < 0.05, found
    moved = mapper.edited(points[200:])
    gone = ((F.normalize(moved, dim=-1) - points[200:]) @ direction).mean().item()
    assert gone == pytest.approx(0.8 * WAY, abs=0.08)
    assert torch.allclose(moved.norm(dim=-1), torch.ones(32), atol=1e-5)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face decoder that reads texts."""
    return make_reading_faces(tmp_path_factory.mktemp("mapper") / "faces")


@pytest.fixture
def train(mmx_in_process, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A training of four steps on a few noises; and any picture is a face."""
    rng = np.random.default_rng(0)
    meta = [{"key": str(k), "split": "val" if k > 7 else "train"} for k in range(10)]
    some = Photos(torch.from_numpy(rng.integers(0, 255, (10, 96, 96, 3)).astype(np.uint8)), meta)
    monkeypatch.setattr("mmx.training.mapper.load_photos", lambda *_: some)
    monkeypatch.setattr("mmx.training.mapper.STEPS", 2)
    monkeypatch.setattr("mmx.guided.edit.find_face", lambda picture, name: picture)
    size = ("--max-steps", 4, "--batch-size", 2, "--device", "cpu", "--decoder", faces)

    def run(name: str, *more: object, text: str = TEXT, code: int = 0) -> tuple[Path, str]:
        found = mmx_in_process("train-mapper", text, "--data", tmp_path, "-o", tmp_path / name, *size, *more)
        assert found[0] == code, found[2].decode()
        return tmp_path / name / "mapper", found[2].decode()

    return run


def test_what_it_learned_edits_and_can_be_made_again(train, mmx_in_process, faces, tmp_path) -> None:
    folder, _ = train("run")
    verify(folder)
    measured = json.loads((folder / "metrics.json").read_text())["val"]
    assert measured["no edit"]["wish"] == pytest.approx(1, abs=1e-4) and measured["no edit"]["likeness"] < 1e-4
    assert {"mapper", "oracle: optimisation", "--direction"} < measured.keys()
    assert TEXT in (folder / "README.md").read_text() and "| mapper |" in (folder / "README.md").read_text()
    picture, made = tmp_path / "face.png", tmp_path / "old.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (96, 96, 3)).astype(np.uint8)).save(picture)
    line = ("edit", picture, "--mapper", folder, "--decoder", faces, "--invert", 1, "--device", "cpu")
    code, _, err = mmx_in_process(*line, "-o", made)
    assert code == 0, err.decode()
    record = read_record(made.read_bytes(), "old.png")
    assert record["bridge"]["name"] == "mapper" and [e["role"] for e in record["inputs"]] == ["source", "plus"]
    again = ("reproduce", made, picture, "--decoder", faces)
    assert mmx_in_process(*again, "--bridge", folder)[0] == 0
    assert mmx_in_process(*again)[0] == 4  # and says which bridge is wanted
    assert mmx_in_process(*line, TEXT, "--strip", "-o", tmp_path / "strip.png")[0] == 0
    with Image.open(tmp_path / "strip.png") as strip, Image.open(made) as one:
        assert strip.width > 6 * one.width
        fifth = strip.crop((4 * (one.width + 2), 0, 4 * (one.width + 2) + one.width, one.height))
        assert np.array_equal(fifth, one)  # strength 1
    for more, code, said in (
        (("a woman",), 2, "nothing else"),
        (("--steps", 3), 2, "--steps"),
        (("--direction",), 2, "--direction"),
        (("--sound", "assets/samples/bark.wav"), 2, "--sound"),
    ):
        found = mmx_in_process(*line, *more, "-o", tmp_path / "no.png")
        assert (found[0], said in found[2].decode()) == (code, True), found[2].decode()
    assert not (tmp_path / "no.png").exists()


def test_another_decoders_mapper_and_what_is_none_are_refused(train, mmx_in_process, faces, tmp_path) -> None:
    folder, _ = train("run")
    picture = tmp_path / "face.png"
    Image.new("RGB", (96, 96), "grey").save(picture)
    other = make_one_step_decoder(tmp_path / "other")
    line = ("edit", picture, "--device", "cpu", "-o", tmp_path / "no.png")
    code, _, err = mmx_in_process(*line, "--mapper", folder, "--decoder", other)
    assert code == 4 and b"was trained for debug/face" in err
    bridge = make_bridge(tmp_path / "bridge", other)
    code, _, err = mmx_in_process(*line, "--mapper", bridge, "--decoder", other)
    assert code == 4 and b"no mapper" in err
    assert mmx_in_process(*line, "--mapper", tmp_path / "gone")[0] == 2
    code, _, err = mmx_in_process("sound2img", "assets/samples/bark.wav", "--bridge", folder, "-o", tmp_path / "no.png")
    assert code == 4 and not (tmp_path / "no.png").exists()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(train, monkeypatch) -> None:
    whole, _ = train("whole")
    wish, looks = Terms.wish, []

    def stopping(terms: Terms, seen) -> torch.Tensor:
        looks.append(1)
        if len(looks) == 2:
            signal.raise_signal(signal.SIGINT)
        return wish(terms, seen)

    with monkeypatch.context() as patched:
        patched.setattr(Terms, "wish", stopping)
        _, said = train("parts", code=130)
    assert "step 2 of 4" in said
    parts, _ = train("parts")
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert "--strength" in train("parts", "--strength", 2, code=2)[1]


@pytest.mark.parametrize(
    ("more", "text", "code", "said"),
    [
        (("--decoder", "gone"), TEXT, 2, "no such model folder"),
        (("--data", "gone"), TEXT, 2, "no such folder"),
        ((), " ", 2, "become"),
        ((), "a smiling man", 3, "nothing of 'smiling'"),
    ],
)
def test_what_makes_no_sense_is_refused(train, more, text, code, said) -> None:
    assert said in train("run", *more, text=text, code=code)[1]
