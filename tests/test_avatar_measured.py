"""What is measured of avatars: crossings against known ones, surfaces that did not change, and the whole protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from mmx.data.photos import Photos
from mmx.evaluation.avatar import MODES, Ask, Critic, crossings, measure_one, surface_of
from mmx.guided.avatar_given import AvatarJob
from mmx.guided.avatar_job import RATE, portrait
from mmx.media.given import Given
from mmx.progress import pace
from mmx.recipes.avatar import AvatarOptions
from tests.small_mesh import ball_file
from tests.small_space import small_space


def edges_of(faces: np.ndarray) -> np.ndarray:
    return np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1), axis=0)


def test_edges_that_run_through_triangles_are_counted() -> None:
    floor = np.array([[-1, -1, 0], [3, -1, 0], [-1, 3, 0]], float)
    spike = np.array(
        [[0.1, 0.1, -1], [0.3, 0.1, 1], [0.1, 0.3, 1]], float
    )  # two of its edges go down through the floor
    points, faces = np.concatenate((floor, spike)), np.array([[0, 1, 2], [3, 4, 5]])
    assert crossings(points, edges_of(faces), faces) == 2
    above = points + np.array([0, 0, 1.5]) * (np.arange(6) > 2)[:, None]
    beside = points + np.array([9, 0, 0]) * (np.arange(6) > 2)[:, None]
    assert crossings(above, edges_of(faces), faces) == crossings(beside, edges_of(faces), faces) == 0
    ball = trimesh.creation.icosphere(2)
    faces = np.asarray(ball.faces)
    assert crossings(ball.vertices, edges_of(faces), faces) == 0
    dented = ball.vertices.copy()
    dented[0] *= -1.2  # through the other side
    assert crossings(dented, edges_of(faces), faces) > 0


def asked(folder: Path, **options: float) -> AvatarJob:
    mesh = ball_file(folder / "ball.obj")
    options = {"steps": 2, "views": 2, "size": 32, "faces": 80} | options
    given = (Given("ball.obj", mesh.read_bytes(), "mesh"),)
    return AvatarJob(given, (Given("red", b"red", "query", is_text=True),), AvatarOptions(**options), "cpu")


def test_a_surface_that_grows_evenly_has_no_spread(tmp_path: Path) -> None:
    made = portrait(small_space(), asked(tmp_path))
    assert surface_of(made, made.start()) == pytest.approx({"moved_%": 0, "spread": 0, "crossings": 0}, abs=1e-4)
    larger = replace(made, scale=1.5 * made.scale)  # as if each point went out by half
    assert surface_of(larger, made.start())["spread"] == pytest.approx(0, abs=1e-4)
    assert surface_of(larger, made.start())["moved_%"] == pytest.approx(100 / 3, abs=0.1)
    weights = made.start()
    weights[-2][:, 0] = torch.linspace(-1, 1, len(weights[-2]))  # a field with offsets
    moved = surface_of(made, weights)
    assert 0 < moved["moved_%"] < 20 and moved["spread"] > 0.01


def test_each_mode_is_measured_by_the_space_and_by_who_did_not_guide(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mmx.guided.avatar_job.SHOWN", 8)
    monkeypatch.setattr("mmx.guided.avatar_job.RATE", 0.01)

    def judge(pictures):  # sees red, or not
        red = torch.tensor([float(np.asarray(p)[..., 0].mean() > np.asarray(p)[..., 2].mean() + 1) for p in pictures])
        return torch.stack((20 * red - 10, 10 - 20 * red), 1), None

    pixels = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    pixels[:2, ..., 0] = 250
    photos = Photos(pixels, [{"concept": label} for label in ("red", "red", "blue")])
    rows = []
    ask = Ask(asked(tmp_path, steps=6), "red")
    table, example = measure_one(
        small_space(), ask, ["blue"], Critic(judge, ("red", "blue")), photos=photos, done=lambda *row: rows.append(row)
    )
    assert (
        {"before", *MODES, "random: called another's name", "oracle: photos of it"} == table.keys() == dict(rows).keys()
    )
    assert table["before"]["named"] == 0 and table["avatar"]["named"] == 1 == table["oracle: photos of it"]["named"]
    assert table["avatar"]["space"] > table["before"]["space"]
    assert table["random: called another's name"]["named"] == 0
    assert table["colours only"]["moved_%"] < 1e-4 and {"spread", "crossings", "cpu_s"} < table["avatar"].keys()
    assert example.title == "ball.obj, red" and len(example.results) == 4 * len(MODES)


def test_a_pace_is_told_in_what_is_easily_read() -> None:
    assert [pace(0.5, 64), pace(0.5, 1), pace(40, 1)] == ["128/s", "0.5 s a step", "40 s a step"]


def test_the_rate_rises_slowly_and_as_slowly_where_it_was_ended_early(tmp_path, monkeypatch) -> None:
    """At full rate from the first steps on, Adam runs all colours to where their tanh has no gradient."""
    schedules = []
    monkeypatch.setattr("mmx.guided.avatar_job.optimise", lambda *given, **_: schedules.append(given[3]))
    job = asked(tmp_path, steps=100)
    for until in (None, 30):
        portrait(small_space(), replace(job, until=until)).optimised()
    for schedule in schedules:
        rates = [schedule.lr_at(step) for step in (0, 9, 19, 39)]
        assert rates == pytest.approx([RATE * share for share in (0.025, 0.25, 0.5, 1.0)])
