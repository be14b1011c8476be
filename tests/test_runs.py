"""A run is what it was started as, there is a whole state on disk at every moment, and no stage outlives what it builds
on.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from mmx.errors import InputError, UsageError
from mmx.training.engine import checkpoint, loop
from mmx.training.engine.ahead import Ahead
from mmx.training.engine.checkpoint import load_state, states
from mmx.training.engine.identity import refuse_another, weights_digest
from mmx.training.engine.loop import Run
from tests.line_task import LineTask, fitted, line, same, weights


class Killed(BaseException):
    """As SIGKILL: nothing that comes after happens."""


def as_before(run: Path) -> None:
    """Make the newest state of a run one that the version before the identity has saved."""
    folder = states(run)[-1]
    meta = json.loads((folder / "state.json").read_text())
    del meta["identity"], meta["upstream"]
    (folder / "state.json").write_text(json.dumps(meta))
    folder.rename(run / f"state-{meta['step']:09d}")


def kill_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Let the `moment`-th change that a save makes to a folder be half done, and nothing come after it."""
    left = [moment]
    rename, rmtree = os.rename, shutil.rmtree

    def counted(act, half):
        def changed(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                half(*arguments)
                raise Killed
            return act(*arguments, **options)

        return changed

    def remove_half(folder, *_: object) -> None:
        for path in sorted(Path(folder).iterdir())[:1]:
            path.unlink()

    monkeypatch.setattr(checkpoint.os, "rename", counted(rename, lambda *_: None))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", counted(rmtree, remove_half))


@pytest.mark.parametrize("moment", range(1, 5))
@pytest.mark.parametrize("step", [40, 12])
def test_there_is_a_whole_state_whenever_a_save_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, step: int
) -> None:
    """Also when the new state has the old one's step, or an earlier one, as a stage has that starts again."""
    run = fitted(line(tmp_path))
    own = {"module": {name: value + 1 for name, value in run.module.state_dict().items()}}
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        try:
            checkpoint.save_state(tmp_path, step, own, {"metrics": {}})
        except Killed:
            pass
        else:
            assert moment == 4, "it makes three changes"
    tensors, meta = load_state(tmp_path)
    old = {name: value.clone() for name, value in run.module.state_dict().items()}
    assert same(tensors["module"], old if moment == 1 else own["module"])
    assert meta["step"] == (40 if moment == 1 else step)
    checkpoint.save_state(tmp_path, 41, own, {"metrics": {}})
    assert [path.name for path in tmp_path.glob("*state-*")] == [states(tmp_path)[0].name]
    assert load_state(tmp_path)[1]["step"] == 41


def test_a_finished_run_started_again_leaves_its_state_alone(tmp_path: Path) -> None:
    fitted(line(tmp_path))
    before = [(path.name, (path / "state.json").stat().st_mtime_ns) for path in states(tmp_path)]
    fitted(line(tmp_path))
    assert [(path.name, (path / "state.json").stat().st_mtime_ns) for path in states(tmp_path)] == before


@pytest.mark.parametrize(
    ("field", "change", "said"),
    [
        ("lr", {"lr": 0.5}, "--lr 0.01, not with --lr 0.5"),
        ("bf16", {"bf16": True}, "--mixed-precision no, not with --mixed-precision bf16"),
        ("seed", {"seed": 3}, "--seed 0, not with --seed 3"),
        ("accumulate", {"accumulate": 2}, "--accumulate 1, not with --accumulate 2"),
        ("weight_decay", {"weight_decay": 0.5}, "--weight-decay"),
        ("loss", {"identity": {"loss": "mse", "data": "a" * 64}}, "--loss infonce, not with --loss mse"),
        ("data", {"identity": {"loss": "infonce", "data": "b" * 64}}, f"data of sha256 {'a' * 12}, not with data of"),
    ],
)
def test_another_recipe_on_the_same_folder_is_refused_by_the_field(
    tmp_path: Path, field: str, change: dict, said: str
) -> None:
    started = {"identity": {"loss": "infonce", "data": "a" * 64}}
    fitted(line(tmp_path, max_steps=2, **started))
    before = weights(line(tmp_path, max_steps=2, **started))
    with pytest.raises(UsageError) as refused:
        line(tmp_path, max_steps=4, **started | change)
    assert said in refused.value.message and str(tmp_path) in refused.value.message
    assert same(weights(line(tmp_path, max_steps=2, **started)), before)
    assert fitted(line(tmp_path, max_steps=4, **started)).step == 4  # longer is the same run


def test_an_identity_is_compared_as_it_is_stored() -> None:
    """Tuples come back as lists; what one side does not know, agrees; long values are cut."""
    refuse_another(Path("run"), {"sizes": {"a": [1, 2]}}, {"sizes": {"a": (1, 2)}, "new": 1})
    with pytest.raises(UsageError) as refused:
        refuse_another(Path("run"), {"sizes": {"a": "x" * 200}}, {"sizes": {}})
    assert len(refused.value.message) < 200 and "--sizes {}" in refused.value.message


def chain(folder: Path, first: int, **options) -> tuple[Run, Run]:
    """Two stages, the second after the first."""
    one = fitted(line(folder / "one", name="one", max_steps=first, **options))
    two = fitted(
        line(folder / "two", name="two", max_steps=6, after=[one], slope=one.average.tensors["0.weight"].sum().item())
    )
    return one, two


def test_a_stage_starts_again_when_what_it_builds_on_was_trained_since(tmp_path: Path, capsys) -> None:
    chain(tmp_path / "run", 2)
    _, again = chain(tmp_path / "run", 12)
    _, fresh = chain(tmp_path / "fresh", 12)
    assert same(weights(again), weights(fresh))
    steps = [json.loads(text)["step"] for text in (tmp_path / "run" / "two" / "log.jsonl").read_text().splitlines()]
    assert [step for step in steps if step == 1] == [1]  # the curves show one training
    state = states(tmp_path / "run" / "two")
    chain(tmp_path / "run", 12)
    assert states(tmp_path / "run" / "two") == state  # nothing changed any more


def test_a_stage_that_starts_again_says_so_and_keeps_the_old_state_until_then(tmp_path: Path, capsys) -> None:
    one, _ = chain(tmp_path, 2)
    one = fitted(line(tmp_path / "one", name="one", max_steps=3))
    two = line(tmp_path / "two", name="two", max_steps=6, after=[one])
    assert two.step == 0 and load_state(tmp_path / "two")[1]["step"] == 6
    two.fit()
    assert "two: starts again" in capsys.readouterr().err
    assert load_state(tmp_path / "two")[1]["upstream"] == {"one": one.digest}


def test_time_is_up_for_all_stages_at_once(tmp_path: Path) -> None:
    run = fitted(line(tmp_path, deadline=0.0))
    assert run.step == 0 and load_state(tmp_path)[1]["step"] == 0
    assert fitted(line(tmp_path)).step == 40


def test_a_state_of_the_version_before_goes_on_or_is_refused_by_name(tmp_path: Path) -> None:
    """It holds the schedule but no identity."""
    fitted(line(tmp_path / "old", max_steps=10))
    as_before(tmp_path / "old")
    with pytest.raises(UsageError, match=r"--lr 0\.01, not with --lr 0\.5"):
        line(tmp_path / "old", lr=0.5)
    resumed = fitted(line(tmp_path / "old", identity={"loss": "infonce"}))
    whole = fitted(line(tmp_path / "new", max_steps=10))
    assert whole.step == 10 and resumed.step == 40
    assert load_state(tmp_path / "old")[1]["identity"]["loss"] == "infonce"
    with pytest.raises(UsageError, match="--loss infonce, not with --loss mse"):
        line(tmp_path / "old", identity={"loss": "mse"})


def test_stages_of_the_version_before_stay_while_nothing_is_trained(tmp_path: Path) -> None:
    chain(tmp_path, 2)
    as_before(tmp_path / "one")
    as_before(tmp_path / "two")
    one = fitted(line(tmp_path / "one", name="one", max_steps=2))
    assert line(tmp_path / "two", name="two", max_steps=6, after=[one]).step == 6
    one = fitted(line(tmp_path / "one", name="one", max_steps=3))
    assert line(tmp_path / "two", name="two", max_steps=6, after=[one]).step == 0
    one = line(tmp_path / "one", name="one", max_steps=3)  # the next command, when the second stage was killed
    assert line(tmp_path / "two", name="two", max_steps=6, after=[one]).step == 0


def test_a_digest_is_that_of_the_weights_in_memory() -> None:
    module, other = LineTask().module, LineTask().module
    assert weights_digest(module) == weights_digest(other)
    before = weights_digest(module, other)
    with torch.no_grad():
        other[3].bias.add_(1e-6)
    assert weights_digest(module) != weights_digest(other) and weights_digest(module, other) != before
    with torch.no_grad():
        other[3].bias.copy_(module[3].bias)
        other[1].running_mean.add_(1e-6)
    assert weights_digest(module) != weights_digest(other)
    assert weights_digest(module.half()) != weights_digest(LineTask().module)


class InTurn:
    """As `Ahead`, with nothing in the background."""

    asked: ClassVar[list[int]] = []

    def __init__(self, draw, end: int) -> None:
        self.draw = draw

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, number: int):
        self.asked.append(number)
        return self.draw(number)

    def settle(self) -> None:
        pass


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_batch_made_in_the_background_is_the_same_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    ahead = fitted(line(tmp_path / "ahead", accumulate=accumulate))
    InTurn.asked.clear()
    monkeypatch.setattr(loop, "Ahead", InTurn)
    in_turn = fitted(line(tmp_path / "in_turn", accumulate=accumulate))
    assert same(weights(ahead), weights(in_turn)) and InTurn.asked == list(range(40 * accumulate))


def test_the_next_batch_is_made_while_the_step_runs() -> None:
    """Batch 1 waits for what only the step on batch 0 gives."""
    step, threads = threading.Event(), []

    def draw(number: int):
        threads.append(threading.current_thread())
        assert number == 0 or step.wait(60)
        return {"x": torch.tensor(number)}, torch.Generator()

    with Ahead(draw, 2) as batches:
        assert batches(0)[0]["x"] == 0
        step.set()
        assert batches(1)[0]["x"] == 1
        batches.settle()
    assert len(threads) == 2 and threading.main_thread() not in threads  # and none after the last


def test_what_a_batch_raises_reaches_the_user_at_its_step(tmp_path: Path) -> None:
    run, drawn = line(tmp_path), []
    batch = run.task.batch

    def failing(size: int, generator: torch.Generator):
        drawn.append(size)
        if len(drawn) == 6:
            raise InputError("a shard is gone")
        return batch(size, generator)

    run.task.batch = failing
    with pytest.raises(InputError, match="a shard is gone"):
        run.fit(quiet=True)
    assert run.step == 5 and load_state(tmp_path)[1]["step"] == 5


def test_nothing_is_drawn_while_val_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer is no thing to share between threads."""
    run, order, settle = line(tmp_path, max_steps=3, validate_steps=1), [], Ahead.settle

    def settled(batches: Ahead) -> None:
        settle(batches)
        assert batches.next is None or batches.next[1].done()
        order.append("settled")

    monkeypatch.setattr(Ahead, "settle", settled)
    run.task.validate = lambda module: order.append("val") or {}
    fitted(run)
    assert order == ["settled", "val"] * 3
