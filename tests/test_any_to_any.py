"""Any source's frontend with any decoder's space: trained, translated, and made again."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmx.bridges.points import PointBridge
from mmx.data.manifest import read_manifest
from mmx.errors import UsageError
from mmx.tasks import task
from tests.conftest import training
from tests.small_data import png, wav, write_shard

NAMES = {"img": "png", "text": "txt", "array": "npy", "sound": "wav", "voice": "wav"}


def written(folder: Path, source: str, target: str, voices: tuple[Path, Path]) -> Path:
    """Ten pairs as a manifest, two of them for val."""
    folder.mkdir()
    rows = []
    for k in range(10):
        name = folder / f"s{k}.{NAMES[source]}"
        if source == "img":
            name.write_bytes(png(20 * k))
        elif source == "text":
            name.write_text(f"number {k}")
        elif source == "voice":
            shutil.copy(voices[k % 2], name)
        elif source == "sound":
            name.write_bytes(wav(200 + 60 * k))
        else:
            np.save(name, np.full((20, 30), 1000 * k, np.uint16) if target != "speech" else np.arange(90.0) * k)
        made = folder / f"t{k}.{'wav' if target == 'speech' else 'png'}"
        made.write_bytes(wav(200 + 60 * k) if target == "speech" else png(20 * k))
        split = "val" if k > 7 else "train"
        rows.append(json.dumps({"source": name.name, "target": made.name, "split": split}))
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder / "pairs.jsonl"


CASES = ["array2img", "array2face", "array2speech", "sound2face", "img2img", "text2img", "text2speech", "voice2speech"]


@pytest.mark.parametrize("name", CASES)
def test_what_is_trained_can_be_run_and_made_again(
    mmx_in_process, request, name: str, tmp_path: Path, low: Path, high: Path
) -> None:
    source, _, target = name.partition("2")
    models = {"img": "debug_models", "face": "face_models", "speech": "speech_models"}[target]
    decoder = request.getfixturevalue(models)[1]
    data, run = written(tmp_path / "data", source, target, (low, high)), tmp_path / "run"
    encoder = ("--encoder", request.getfixturevalue("debug_models")[1]) if source in ("img", "text") else ()
    code, _, err = mmx_in_process(*training(name, data, run, decoder, *encoder))
    assert code == 0, err.decode()
    config = json.loads((run / "config.json").read_text())
    assert config["task"] == name and config["sources"] == [{"img": "image"}.get(source, source)]
    given = data.parent / f"s9.{NAMES[source]}"
    out = tmp_path / f"out.{'wav' if target == 'speech' else 'png'}"
    models = ("--bridge", run, "--decoder", decoder, *encoder)
    code, said, err = mmx_in_process("translate", given, *models, "-o", out, "--device", "cpu", "--json")
    assert code == 0 and json.loads(said)["command"] == name, err.decode()
    code, _, err = mmx_in_process("reproduce", out, given, *models)
    assert code == 0, err.decode()
    if target == "speech":
        line = (
            "translate",
            given,
            *models,
            "-o",
            tmp_path / "fast.wav",
            "--device",
            "cpu",
            "--speed",
            2,
            "--voice",
            "rms",
        )
        assert mmx_in_process(*line)[0] == 0
        assert abs((tmp_path / "fast.wav").stat().st_size / out.stat().st_size - 0.5) < 0.3
    wrong = ("--steps", 3) if target == "speech" else ("--speed", 2)
    code, _, err = mmx_in_process("translate", given, *models, "-o", tmp_path / "no", *wrong)
    assert code == 2 and b"leave it out" in err


def test_a_written_task_is_what_its_own_command_does(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    for command in ("sound2img", "translate"):
        out = tmp_path / f"{command}.png"
        assert mmx_in_process(command, bark, "-o", out, *debug_options, "--seed", 3, "-q")[0] == 0
    assert (tmp_path / "sound2img.png").read_bytes() == (tmp_path / "translate.png").read_bytes()


def test_drawings_learn_where_their_pictures_are(mmx_in_process, debug_models, tmp_path: Path) -> None:
    """From shards that hold both sides; a val drawing finds its own colour far above chance."""
    rng, samples = np.random.default_rng(0), {}
    for k in range(60):
        kind = k % 3
        drawing = np.zeros((40, 40), np.uint16)
        drawing[10 * kind + 5 : 10 * kind + 15] = 40_000
        drawing += rng.integers(0, 2000, drawing.shape).astype(np.uint16)
        colour = [(200, 30, 30), (30, 200, 30), (30, 30, 200)][kind]
        buffer, photo = io.BytesIO(), io.BytesIO()
        Image.fromarray(drawing).save(buffer, "PNG")
        Image.new("RGB", (32, 32), tuple(c + int(rng.integers(20)) for c in colour)).save(photo, "JPEG")
        meta = {"label": str(kind), "split": "val" if k > 44 else "train"}
        samples[f"{k:03d}"] = {"png": buffer.getvalue(), "jpg": photo.getvalue(), "json": json.dumps(meta).encode()}
    write_shard(tmp_path / "edges-000.tar", samples)
    run = tmp_path / "run"
    line = training("array2img", tmp_path, run, debug_models[1], "--prior-steps", 0, steps=40)
    code, _, err = mmx_in_process(*line)
    assert code == 0, err.decode()
    measured = json.loads((run / "metrics.json").read_text())["val"]
    assert measured["val_recall_at_1"] > 0.8 > 2 * measured["val_chance"]
    line = ("eval", "array2img", "--data", tmp_path, "--bridge", run, "--decoder", debug_models[1])
    code, out, err = mmx_in_process(*line, "-o", tmp_path / "report", "--card", "--json", "-q")
    assert code == 0, err.decode()
    found = json.loads(out)["retrieval"]
    assert found["array2img"]["recall_at_1"] > found["random: another source"]["recall_at_1"]
    assert b"data:image/png" in (tmp_path / "report" / "report.html").read_bytes()
    kind = PointBridge.load(run).config.array
    assert kind["axes"] == 2 and kind["channels"] == 1 and 5_000 < kind["mean"][0] < 20_000
    line = training("array2img", tmp_path, tmp_path / "lines", debug_models[1], "--prior-steps", 0, steps=2)
    assert mmx_in_process(*line, "--as", "drawing")[0] == 0
    config = PointBridge.load(tmp_path / "lines").config
    assert config.array["drawing"] and 0 < config.array["mean"][0] < 1
    assert len(config.mean) == config.spec["shape"][0] and 0 < sum(value**2 for value in config.mean) <= 1


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [("img2img", ("sources",), ("targets",)), ("img2face", ("sources",), ("faces", "targets"))],
)
def test_both_sides_of_a_composed_task_have_their_own_folders(name: str, source: tuple, target: tuple) -> None:
    row = task(name)
    assert row.source.folders == source and row.target.folders == target


def test_folders_and_manifests_may_hold_arrays(tmp_path: Path) -> None:
    for side in ("arrays", "images"):
        (tmp_path / side).mkdir()
    for k in range(3):
        np.save(tmp_path / "arrays" / f"{k}.npy", np.zeros((4, 4)))
        (tmp_path / "images" / f"{k}.png").write_bytes(png(k))
    manifest = read_manifest(str(tmp_path), "array2img")
    assert len(manifest.sources.items) == 3 and manifest.sources.items[0].name.endswith(".npy")
    assert task("text2img", having="trainer").trainer != task("sound2img").trainer


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("translate a.npy --bridge nowhere", 2, b"no such model folder"),
        ("translate a.npy --bridge {empty}", 4, b"not a bridge"),
        ("translate a.npy", 2, b"--bridge"),
        ("train-bridge array2smell --data {empty} -o {tmp}/r", 2, b"any of sound|voice|img|text|array"),
        ("train-bridge array2img --data {empty} -o {tmp}/r --as colour", 2, b"--as depth"),
        ("train-bridge text2img --data {empty} -o {tmp}/r --as depth", 2, b"takes no arrays"),
        ("train-bridge array2img --data {mixed} -o {tmp}/r --decoder {decoder}", 3, b"one kind"),
        ("train-bridge array2img --data {bad} -o {tmp}/r --decoder {decoder}", 3, b"no array here"),
    ],
)
def test_errors_are_one_line(mmx_in_process, debug_models, tmp_path: Path, line: str, code: int, said: bytes) -> None:
    (tmp_path / "empty").mkdir()
    for name, arrays in {"mixed": (np.zeros((4, 4)), np.zeros(100)), "bad": (None, None)}.items():
        for side in ("arrays", "images"):
            (tmp_path / name / side).mkdir(parents=True)
        for k, array in enumerate(arrays):
            path = tmp_path / name / "arrays" / f"{k}.npy"
            path.write_bytes(b"no") if array is None else np.save(path, array)
            (tmp_path / name / "images" / f"{k}.png").write_bytes(png(k))
    paths = {name: tmp_path / name for name in ("empty", "mixed", "bad")}
    got, _, err = mmx_in_process(*line.format(tmp=tmp_path, decoder=debug_models[1], **paths).split())
    assert got == code and said in err and b"bug" not in err, err
    with pytest.raises(UsageError):
        task("smell2img")


def test_a_bridge_from_texts_is_asked_itself(mmx_in_process, debug_models, tmp_path: Path, low, high) -> None:
    """And not its prior alone, as a bridge from sounds is for texts: without its weights the picture is another."""
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    data = written(tmp_path / "data", "text", "img", (low, high))
    line = training("text2img", data, run, debug_models[1], "--encoder", debug_models[1])
    assert mmx_in_process(*line)[0] == 0
    models = ("--bridge", run, "--decoder", debug_models[1], "--encoder", debug_models[1], "--device", "cpu", "-q")
    assert mmx_in_process("translate", "a dog", *models, "-o", tmp_path / "a.png")[0] == 0
    weights = load_file(run / "model.safetensors")
    save_file({k: -v if k.startswith("encoder.") else v for k, v in weights.items()}, run / "model.safetensors")
    (run / "SHA256SUMS").unlink()
    shutil.copytree(run, tmp_path / "other")  # a model is loaded once by its name
    models = ("--bridge", tmp_path / "other", *models[2:])
    assert mmx_in_process("translate", "a dog", *models, "-o", tmp_path / "b.png")[0] == 0
    both = [np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in "ab"]
    assert np.abs(both[0] - both[1]).max() > 0


def test_every_source_that_is_seen_by_an_encoder_has_one_that_comes_with_mmx() -> None:
    from mmx.models.store import locate

    for name in ("text2img", "text2face", "img2img", "text2speech", "img2face"):
        assert (locate(None, name, "encoder").folder / "teacher").is_dir(), name
