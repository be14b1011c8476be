"""`mmx train-bridge` on a folder where there is a run already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from mmx.training.engine.checkpoint import load_state
from tests.line_task import same
from tests.training_data import bridge_command, two_concepts


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_concepts(tmp_path_factory.mktemp("data"))


def same_bridge(one: Path, other: Path) -> bool:
    return same(*(load_file(folder / "model.safetensors") for folder in (one, other)))


def test_more_steps_for_the_encoder_train_the_prior_anew(mmx_in_process, shards, debug_models, tmp_path: Path) -> None:
    small = ("--batch-size", "2", "--prior-steps", "1", "--max-steps")
    command = bridge_command(shards, tmp_path / "run", debug_models[1], *small)
    assert mmx_in_process(*command, "1")[0] == 0
    before = load_state(tmp_path / "run" / "prior")[0]
    code, _, err = mmx_in_process(*command, "3")
    assert code == 0 and b"prior: starts again" in err
    after = load_state(tmp_path / "run" / "prior")[0]
    assert not same(before["optimizer"], after["optimizer"])
    # the same encoder, and a prior that never knew another
    shutil.copytree(tmp_path / "run" / "bridge", tmp_path / "fresh" / "bridge")
    command[command.index(str(tmp_path / "run"))] = str(tmp_path / "fresh")
    assert mmx_in_process(*command, "3")[0] == 0
    fresh = load_state(tmp_path / "fresh" / "prior")[0]
    assert all(same(after[group], fresh[group]) for group in ("module", "average", "optimizer"))
    assert same_bridge(tmp_path / "run", tmp_path / "fresh")


def test_another_recipe_is_refused(mmx_in_process, shards, debug_models, tmp_path: Path) -> None:
    command = bridge_command(
        shards, tmp_path / "run", debug_models[1], "--max-steps", "2", "--batch-size", "2", "--prior-steps", "0"
    )
    assert mmx_in_process(*command)[0] == 0
    metrics = (tmp_path / "run" / "metrics.json").read_bytes()
    other = two_concepts(tmp_path / "other", seed=1)
    for change, said in (
        (["--loss", "mse"], "--loss infonce, not with --loss mse"),
        (["--data", str(other)], "data of sha256"),
    ):
        code, _, err = mmx_in_process(*command, *change)
        assert code == 2 and said in err.decode(), (change, err.decode())
        assert (tmp_path / "run" / "metrics.json").read_bytes() == metrics


def test_max_minutes_are_those_of_the_command(
    mmx_in_process, shards, debug_models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bark: Path
) -> None:
    """A clock that each look at moves on by a second: the encoder uses up all of it, and the prior gets none."""
    small = ("--max-steps", "6", "--batch-size", "2", "--prior-steps", "1")
    command = bridge_command(shards, tmp_path / "run", debug_models[1], *small)
    with monkeypatch.context() as patch:
        seconds = iter(range(1_000_000))
        clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
        for module in ("bridges.base", "engine.loop"):
            patch.setattr(f"mmx.training.{module}.time", clock)
        code, _, err = mmx_in_process(*command, "--max-minutes", "0.05")
    assert code == 0 and b"no time was left for the prior" in err
    assert 0 < json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] < 6
    assert json.loads((tmp_path / "run" / "config.json").read_text())["prior"] is None
    options = ("--bridge", tmp_path / "run", "--decoder", debug_models[1], "--steps", 2)
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "b.png", *options)[0] == 0
    assert mmx_in_process(*command)[0] == 0
    assert mmx_in_process(*bridge_command(shards, tmp_path / "whole", debug_models[1], *small))[0] == 0
    assert same_bridge(tmp_path / "run", tmp_path / "whole")
