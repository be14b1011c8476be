"""The loop that moves a residual through frozen networks, against what is known of it."""

from __future__ import annotations

import math
import signal
from itertools import pairwise

import pytest
import torch
from torch import nn

from mmx.guided.residual import Schedule, Term, normalised, optimise

GOAL = torch.tensor([1.0, -2.0, 0.5])


def distance(point: torch.Tensor) -> torch.Tensor:
    return (point - GOAL).square().sum()


def size(point: torch.Tensor) -> torch.Tensor:
    return point.square().sum()


def first(residual, step):
    return residual[0]


def test_two_weighted_losses_end_where_their_sum_is_lowest():
    start = torch.zeros(3)
    found = optimise([start], first, [Term("far", 3.0, distance), Term("big", 1.0, size)], Schedule(300, 0.05))
    assert torch.allclose(found.residual[0], GOAL * 3 / 4, atol=1e-3)  # the minimum of 3 |x - g|^2 + |x|^2
    assert torch.equal(start, torch.zeros(3)) and not found.residual[0].requires_grad
    assert found.stopped == "" and found.steps[0].losses == {"far": float(distance(start)), "big": 0.0}
    assert found.steps[0].loss == pytest.approx(3 * float(distance(start)))


def test_the_best_is_kept_and_the_last_where_that_is_asked_for():
    wild = Schedule(12, 3.0, ramp_up=0, ramp_down=0)  # jumps over the goal again and again
    terms = [Term("far", 1.0, distance)]
    best, last = (optimise([torch.zeros(3)], first, terms, wild, keep=keep) for keep in ("best", "last"))
    lowest = min(best.steps, key=lambda step: step.loss)
    assert float(distance(best.residual[0])) == pytest.approx(lowest.loss) and best.step == lowest.index
    assert [step.loss for step in last.steps] == [step.loss for step in best.steps][:12]
    assert last.step == 12 and float(distance(last.residual[0])) == pytest.approx(best.steps[12].loss)


def test_one_normalised_step_is_the_gradient_over_its_norm_to_a_power():
    start = torch.tensor([3.0, -1.0])
    gradient = 2 * start
    found = optimise(
        [start], first, [Term("size", 1.0, size)], Schedule(1, 0.3, 0, 0), keep="last", rule=normalised(0.9)
    )
    assert torch.allclose(found.residual[0], start - 0.3 * gradient / gradient.norm() ** 0.9)


def test_a_tensor_that_no_loss_sees_stays():
    pair = [torch.zeros(3), torch.ones(2)]
    found = optimise(pair, first, [Term("far", 1.0, distance)], Schedule(5, 0.1))
    assert torch.equal(found.residual[1], torch.ones(2)) and not torch.equal(found.residual[0], pair[0])


def test_frozen_networks_neither_move_nor_gather_gradients():
    net = nn.Linear(3, 3).requires_grad_(False)
    before = [p.clone() for p in net.parameters()]
    optimise([torch.zeros(3)], lambda r, _: net(r[0]), [Term("far", 1.0, distance)], Schedule(5, 0.1))
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, net.parameters(), strict=True))


def test_it_works_inside_no_grad():
    with torch.no_grad():
        found = optimise([torch.zeros(3)], first, [Term("far", 1.0, distance)], Schedule(100, 0.1))
    assert distance(found.residual[0]) < 0.1


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_ends_it_with_what_was_good(keep, where):
    def loss(point):
        if where == "loss":
            return distance(point) * (math.nan if point.norm() > 0.5 else 1.0)
        left = 0.5 - point.norm()
        return distance(point) + torch.where(left > 0, left.sqrt(), 0.0)  # beyond, its gradient is 0 times no number

    found = optimise([torch.full((3,), 0.1)], first, [Term("far", 1.0, loss)], Schedule(50, 0.2), keep=keep)
    assert found.stopped == "nonfinite" and len(found.steps) < 50
    assert math.isfinite(float(loss(found.residual[0]))) and found.residual[0].isfinite().all()


def test_ctrl_c_ends_after_the_step_in_work():
    def watch(step, _):
        if step.index == 3:
            signal.raise_signal(signal.SIGINT)

    found = optimise([torch.zeros(3)], first, [Term("far", 1.0, distance)], Schedule(50, 0.1), watch=watch)
    assert found.stopped == "interrupted" and len(found.steps) == 4 and found.step == 3


def test_it_ends_early_where_nothing_gets_better():
    found = optimise([GOAL.clone()], first, [Term("far", 1.0, distance)], Schedule(50, 0.1, patience=3))
    assert found.stopped == "early" and found.step == 0 and len(found.steps) == 4


def test_the_rate_rises_stays_and_falls():
    schedule = Schedule(100, 2.0)
    rates = [schedule.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(2 / 5) and rates[4:75] == [2.0] * 71
    assert all(a > b for a, b in pairwise(rates[75:])) and 0 < rates[-1] < 0.02
    assert Schedule(5, 0.3, 0, 0).lr_at(4) == 0.3
