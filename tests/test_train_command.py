"""The training commands from end to end, on shards of a few samples."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmx.decoders.base import fingerprint
from mmx.decoders.unclip import PARTS, ImageDecoder
from tests.conftest import ROOT
from tests.small_data import write_shard
from tests.training_data import bridge_command, jpeg, sound, two_concepts, two_kinds_of_people


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_concepts(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_kinds_of_people(tmp_path_factory.mktemp("people"))


def test_a_bridge_is_trained_and_its_decoder_is_not(
    mmx_in_process, shards: Path, debug_models, tmp_path: Path, bark: Path
) -> None:
    decoder = debug_models[1]
    before = fingerprint(decoder, PARTS)
    code, _, err = mmx_in_process(*bridge_command(shards, tmp_path / "run", decoder))
    assert code == 0, err.decode()
    assert fingerprint(decoder, PARTS) == before
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert measured["steps"] == 30 and "--max-steps 30" in measured["command"] and str(tmp_path) not in str(measured)
    assert {"val_top1", "val_recall_at_1", "val_back_recall_at_10", "val_mean_rank", "val_oracle_recall_at_1"} <= set(
        measured["val"]
    )
    assert measured["val"]["val_top1_chance"] == 0.5 and measured["data_sha256"] and measured["hardware"]
    assert "val_top1" in (tmp_path / "run" / "README.md").read_text()
    options = ("--bridge", tmp_path / "run", "--decoder", decoder, "--steps", 2)
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "b.png", *options)[0] == 0


def test_a_killed_run_ends_in_the_same_weights(
    mmx_in_process, python, shards: Path, one_step_models, tmp_path: Path
) -> None:
    """SIGKILL after the first stage was saved, then the same command; beside a run that nobody disturbed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    lines = {name: bridge_command(shards, tmp_path / name, one_step_models[1]) for name in ("whole", "killed")}
    killed = subprocess.Popen(
        [*python, "-m", "mmx", *lines["killed"]],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    for line in killed.stderr:
        if line.startswith("prior"):  # the first stage's state is on disk by then
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode in (-signal.SIGKILL, 0)
    for line in lines.values():
        assert mmx_in_process(*line)[0] == 0
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_saves_and_the_rest_ends_in_the_same_weights(tmp_path: Path, times: int) -> None:
    """Wherever in a step it comes; the second one at once, without a half step being saved."""
    from mmx.errors import Interrupted
    from mmx.training.engine.checkpoint import load_state
    from mmx.training.engine.loop import Run
    from tests.line_task import CONFIG, LineTask

    whole = Run(LineTask(), CONFIG, tmp_path / "whole")
    whole.fit(quiet=True)
    run = Run(LineTask(), CONFIG, tmp_path / "stopped")
    step = run.optimizer.step

    def step_and_interrupt(*arguments) -> None:
        step(*arguments)
        if run.step == 7:  # the weights have been changed, and the step is not counted yet
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    run.optimizer.step = step_and_interrupt
    with pytest.raises(Interrupted if times == 1 else KeyboardInterrupt) as stopped:
        run.fit(quiet=True)
    if times == 1:
        assert stopped.value.exit_code == 130 and "same command" in stopped.value.hint
        assert "stopped and saved at step 8" in stopped.value.message
    assert load_state(tmp_path / "stopped")[1]["step"] == (8 if times == 1 else 7)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = Run(LineTask(), CONFIG, tmp_path / "stopped")
    again.fit(quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.module.parameters(), again.module.parameters(), strict=True))


def test_folders_with_equal_stems(mmx_in_process, debug_models, tmp_path: Path) -> None:
    """Sound2Scene's own layout: no labels, so recall is measured and nothing is named."""
    rng = np.random.default_rng(1)
    for number in range(60):
        for name, suffix, data in (
            ("audios", "wav", sound(200 + 60 * number, rng)),
            ("images", "jpg", jpeg((4 * number, 100, 250 - 4 * number), 64, rng)),
        ):
            (tmp_path / "pairs" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "pairs" / name / f"x{number}.{suffix}").write_bytes(data)
    (tmp_path / "pairs" / "images" / "x3.jpg").write_bytes(b"no picture")  # one of sixty: skipped
    (tmp_path / "pairs" / "audios" / "alone.wav").write_bytes(sound(500, rng))
    code, _, err = mmx_in_process(*bridge_command(tmp_path / "pairs", tmp_path / "run", debug_models[1]))
    assert code == 0, err.decode()
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "val_recall_at_1" in measured["val"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["labels"] == {}


def test_more_than_a_twentieth_unreadable_stops(mmx_in_process, debug_models, tmp_path: Path) -> None:
    meta = json.dumps({"concept": "dog", "split": "train"}).encode()
    write_shard(tmp_path / "images-000.tar", {f"p{k}": {"jpg": b"broken", "json": meta} for k in range(3)})
    write_shard(tmp_path / "sounds-000.tar", {"s0": {"wav": sound(440, np.random.default_rng(0)), "json": meta}})
    code, _, err = mmx_in_process(*bridge_command(tmp_path, tmp_path / "run", debug_models[1]))
    assert code == 3 and b"3 of 3 samples can't be read" in err


def test_an_image_decoder_is_trained_and_drives_a_bridge(
    mmx_in_process, shards: Path, tmp_path: Path, debug_models
) -> None:
    """All stages for a step or two; then a second decoder in the same space, for which the bridge stays valid."""
    command = [
        "train-decoder",
        "image",
        "--data",
        shards,
        "--device",
        "cpu",
        "--quiet",
        "--codec-steps",
        "1",
        "--finish-steps",
        "1",
    ]
    code, _, err = mmx_in_process(*command, "-o", tmp_path / "a", "--space-steps", "1", "--max-steps", "1")
    assert code == 0, err.decode()
    first = tmp_path / "a" / "decoder"
    card = (first / "README.md").read_text()
    assert "psnr" in card and "concept_top1" in card and "val_v" in card
    sums = (first / "SHA256SUMS").read_text()
    assert mmx_in_process(*command, "-o", tmp_path / "a", "--space-steps", "1", "--max-steps", "1")[0] == 0
    assert (first / "SHA256SUMS").read_text() == sums  # nothing left to do: the same bytes
    code, _, err = mmx_in_process(*command, "-o", tmp_path / "b", "--teacher", first, "--max-steps", "2", "--seed", "1")
    assert code == 0, err.decode()
    specs = [ImageDecoder.load(folder).spec for folder in (first, tmp_path / "b" / "decoder")]
    assert specs[0].fingerprint == specs[1].fingerprint
    assert (tmp_path / "b" / "decoder" / "SHA256SUMS").read_text() != sums


def test_a_voice_bridge_is_trained(mmx_in_process, people: Path, face_models, tmp_path: Path, low: Path) -> None:
    decoder = face_models[1]
    before = fingerprint(decoder, PARTS)
    for loss, rest in (("speech2face", []), ("infonce", ["--normalize-targets"])):
        run = tmp_path / loss
        command = [
            "train-bridge",
            "voice2face",
            "--data",
            people,
            "-o",
            run,
            "--decoder",
            decoder,
            "--loss",
            loss,
            *rest,
        ]
        code, _, err = mmx_in_process(
            *command, "--max-steps", 3, "--prior-steps", 2, "--batch-size", 6, "--device", "cpu", "--quiet"
        )
        assert code == 0, err.decode()
        assert fingerprint(decoder, PARTS) == before
        assert set(json.loads((run / "metrics.json").read_text())["val"]) >= {"val_gender", "val_recall_at_1"}
        options = ("--bridge", run, "--decoder", decoder, "--steps", 2)
        assert mmx_in_process("voice2face", low, "-o", tmp_path / f"{loss}.png", *options)[0] == 0
    code, _, err = mmx_in_process(
        "train-bridge", "voice2face", "--data", people, "-o", tmp_path / "x", "--loss", "units"
    )
    assert code == 2 and b"speech2face or infonce" in err
    code, _, err = mmx_in_process(
        "train-bridge", "voice2face", "--data", people, "-o", tmp_path / "x", "--normalize-targets"
    )
    assert code == 2 and b"does not compare with normalised targets" in err


def test_a_face_decoder_is_trained(mmx_in_process, people: Path, tmp_path: Path) -> None:
    command = ["train-decoder", "face", "--data", people, "--device", "cpu", "--quiet", "-o", tmp_path / "run"]
    code, _, err = mmx_in_process(
        *command, "--space-steps", "1", "--codec-steps", "1", "--max-steps", "1", "--finish-steps", "1"
    )
    assert code == 0, err.decode()
    decoder = ImageDecoder.load(tmp_path / "run" / "decoder")
    generator = torch.Generator().manual_seed(0)
    face = decoder.decode(torch.randn(1, 256), generators=[generator], steps=2)[0]
    assert face.size == (96, 96)
    assert "age_band" in (tmp_path / "run" / "decoder" / "README.md").read_text()
