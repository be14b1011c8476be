"""`mmx eval --card` writes into bridges of the user's own, and touches no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmx.bridges.sound import SoundBridge
from mmx.errors import ModelError
from mmx.models import store
from mmx.training.card import add_evaluation

RESULT = {"schema": "mmx.eval/1", "task": "sound2img", "split": "val", "naming": {"sound2img": {"top-1": 0.5}}}
MEASURED = {"val": {"val_recall_at_1": 0.5}, "command": "mmx train-bridge", "steps": 1, "batch_size": 2, "loss": "mse"}


@pytest.fixture
def bridge(debug_models: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(debug_models[0], tmp_path / "bridge")
    (tmp_path / "bridge" / "metrics.json").write_text(json.dumps(MEASURED | {"seed": 0}))
    (tmp_path / "bridge" / "README.md").write_text("as published")
    return tmp_path / "bridge"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bridge_of_ones_own_gets_its_card(bridge: Path, tmp_path: Path) -> None:
    config = SoundBridge.load(bridge).config
    elsewhere = tmp_path / "elsewhere.md"
    elsewhere.write_text("mine")
    (bridge / "README.md").unlink()
    (bridge / "README.md").symlink_to(elsewhere)
    assert add_evaluation(bridge, config, RESULT, tmp_path / "report") == bridge / "README.md"
    assert "Measured by `mmx eval sound2img`" in (bridge / "README.md").read_text()
    assert json.loads((bridge / "metrics.json").read_text())["evaluation"] == RESULT
    assert elsewhere.read_text() == "mine" and not (tmp_path / "report").exists()  # not through the link
    (bridge / "metrics.json").unlink()
    with pytest.raises(ModelError, match=r"no metrics\.json"):
        add_evaluation(bridge, config, RESULT, tmp_path / "report")


@pytest.mark.parametrize("kind", ["hub", "starter"])
def test_what_is_not_ones_own_stays_as_it_is(bridge: Path, tmp_path: Path, monkeypatch, kind: str) -> None:
    config, report = SoundBridge.load(bridge).config, tmp_path / "report"
    if kind == "hub":  # a snapshot of links to blobs
        folder = tmp_path / "hub" / "snapshots" / ("c" * 40)
        folder.mkdir(parents=True)
        for path in bridge.iterdir():
            (folder / path.name).symlink_to(path)
    else:
        monkeypatch.setattr(store, "assets", lambda: tmp_path)
        folder = bridge
    before = files(folder)
    assert add_evaluation(folder, config, RESULT, report) == report / "README.md"
    assert "Measured by `mmx eval sound2img`" in (report / "README.md").read_text()
    assert files(folder) == before and all(path.is_symlink() == (kind == "hub") for path in folder.iterdir())
