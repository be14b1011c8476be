"""`mmx avatar`: a mesh comes to look like what is asked for, from all around, by the same steps each time."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from mmx.guided.avatar import Body, Looking, boxes_of, cropped, roughness, weighted
from mmx.guided.raster import Topology
from mmx.guided.shading import Views
from mmx.media.provenance import read_record
from mmx.spaces.base import Space
from tests.small_mesh import ball_file, glb_colours
from tests.small_space import see_pixels, small_space

FAST = ("--steps", 12, "--views", 2, "--size", 32, "--faces", 80, "--device", "cpu")


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Callable[[Space], None]:
    """Replaces the space that the commands load; a small one until another is given."""

    def use(one: Space) -> None:
        monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: one)

    use(small_space())
    return use


@pytest.fixture
def ball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return ball_file(tmp_path / "ball.obj")


def colours(path: Path) -> np.ndarray:
    """Mean colour of a mesh's points."""
    return trimesh.load_mesh(path, process=False).visual.vertex_colors[:, :3].mean(0)


@pytest.mark.parametrize(("wanted", "channel"), [("red", 0), ("blue", 2)])
def test_a_mesh_takes_on_the_colour_that_the_space_wants(
    mmx_in_process, space, ball, wanted: str, channel: int
) -> None:
    code, out, err = mmx_in_process(
        "avatar", ball, wanted, "-o", "a.obj", "-o", "a.png", "--json", *FAST, "--steps", 60
    )
    assert code == 0, err
    own = colours(Path("a.obj")).astype(int)
    others = np.delete(own, channel)
    assert own[channel] > 127 + 20 and own[channel] > others.max() + 40
    about = json.loads(out)
    assert about["outputs"] == ["a.obj", "a.png"] and about["steps"] == 60 and about["losses"].keys() == {
        "views", "crops", "shape", "rough",
    }  # fmt: skip
    with Image.open("a.png") as sheet:
        shown = np.asarray(sheet.convert("RGB")).astype(int)
    painted = shown[(shown.min(-1) < 240)]
    assert painted.mean(0).argmax() == channel and (shown[0, 0] == 255).all()


def test_the_same_seed_gives_the_same_bytes_and_reproduce_finds_them(mmx_in_process, space, ball, tmp_path) -> None:
    kinds = [f"a.{kind}" for kind in ("glb", "obj", "ply", "gif", "png", "mp4")]
    outputs = [word for kind in kinds for word in ("-o", kind)]
    assert mmx_in_process("avatar", ball, "red - 0.5*'green'", *outputs, *FAST, "--quiet")[0] == 0
    first = {kind: Path(kind).read_bytes() for kind in kinds}
    for kind in kinds:
        assert mmx_in_process("reproduce", kind)[0] == 0, kind
        assert b"small" in mmx_in_process("inspect", kind)[1]
    assert mmx_in_process("avatar", ball, "red - 0.5*'green'", "-o", "b.ply", *FAST, "--seed", 1)[0] == 0
    record, other = (read_record(data, "a") for data in (first["a.ply"], Path("b.ply").read_bytes()))
    assert record["inputs"] == other["inputs"] and [e["weight"] for e in record["inputs"]] == [1.0, 1.0, -0.5]
    assert record["space"] == {"name": "small", "sha256": small_space().fingerprint}
    assert first["a.ply"][-500:] == Path("b.ply").read_bytes()[-500:]  # the triangles
    assert first["a.ply"] != Path("b.ply").read_bytes()

    space(replace(small_space(), fingerprint="f" * 64))
    code, out, _ = mmx_in_process("reproduce", "a.glb", "--json")
    assert "the space small is another version" in json.loads(out.splitlines()[0])["differences"]
    Path(ball).unlink()
    code, _, err = mmx_in_process("reproduce", "a.glb")
    assert code == 3 and b"beside it" in err


def breaking(at: int, how: Callable[[torch.Tensor], torch.Tensor]) -> Space:
    """A space of which something is done to what it sees the `at`-th time with gradients."""
    calls = []

    def pixels(seen: torch.Tensor) -> torch.Tensor:
        calls.append(seen.requires_grad)
        return how(see_pixels(seen)) if sum(calls) == at and calls[-1] else see_pixels(seen)

    return replace(small_space(), pixels=pixels)


def interrupted(vectors: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGINT)
    return vectors


def test_ctrl_c_writes_what_there_is_and_it_can_be_made_again(mmx_in_process, space, ball) -> None:
    space(breaking(4, interrupted))
    code, _, err = mmx_in_process("avatar", ball, "red", "-o", "a.ply", *FAST)
    assert code == 130 and b"after 3 of 12 steps" in err
    assert read_record(Path("a.ply").read_bytes(), "a")["settings"]["until"] == 3
    space(small_space())
    assert mmx_in_process("reproduce", "a.ply")[0] == 0
    assert mmx_in_process("avatar", ball, "red", "-o", "whole.ply", *FAST)[0] == 0
    points = slice(-42 * 27 - 80 * 13, -80 * 13)  # of a PLY
    assert Path("whole.ply").read_bytes()[points] != Path("a.ply").read_bytes()[points]


def test_losses_that_are_no_numbers_keep_what_there_was(mmx_in_process, space, ball) -> None:
    space(breaking(3, lambda vectors: vectors * torch.nan))
    code, _, err = mmx_in_process("avatar", ball, "red", "-o", "a.obj", *FAST)
    assert code == 7 and b"after 1 of 12 steps" in err
    assert np.isfinite(trimesh.load_mesh("a.obj").vertices).all()
    space(breaking(1, lambda vectors: vectors * torch.nan))
    code, _, err = mmx_in_process("avatar", ball, "red", "-o", "b.obj", *FAST)
    assert code == 7 and b"nothing was made" in err and not Path("b.obj").exists()


def test_a_folder_is_a_motion_with_one_field(mmx_in_process, space, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, stretch in enumerate(((1, 1, 1), (1, 1.5, 1), (1, 2, 1))):
        ball_file(tmp_path / "walk" / f"{number}.ply", stretch=stretch)
    line = ("avatar", "walk", "red", *FAST, "--quiet", "-o", "walk.gif", "-o", "frames")
    code, _, err = mmx_in_process(*line)
    assert code == 0, err
    with Image.open("walk.gif") as shown:
        assert shown.n_frames == 3
    files = sorted(Path("frames").iterdir())
    assert [path.name for path in files] == ["0000.glb", "0001.glb", "0002.glb"]
    found = [trimesh.load_mesh(path, process=False) for path in files]
    painted = [glb_colours(path.read_bytes()) for path in files]
    assert all(np.array_equal(own, painted[0]) for own in painted) and np.ptp(painted[0]) > 0
    heights = [np.ptp(mesh.vertices[:, 1]) for mesh in found]
    assert heights == pytest.approx([2, 3, 4], rel=0.1)
    assert mmx_in_process("reproduce", files[1], *sorted(Path("walk").iterdir()))[0] == 0
    ball_file(tmp_path / "walk" / "9.ply", fineness=2)
    code, _, err = mmx_in_process(*line, "--overwrite")
    assert code == 3 and b"9.ply: its triangles are not those of" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("no.obj", "red"), 2, b"no such file"),
        (("ball.obj", "red", "-o", "a.blend"), 2, b"this writes"),
        (("ball.obj", "red", "-o", "a.stl"), 2, b"this writes"),
        (("ball.obj", "-"), 2, b"stdin"),
        (("ball.obj", "gone.wav"), 2, b"no such file"),
        ((".", "red"), 2, b"no mesh in this folder"),
        (("words.txt", "red"), 3, b"not a mesh"),
        (("ball.obj", "red", "-o", "taken.glb"), 2, b"--overwrite"),
        (("ball.obj", "red", "--dtype", "fp8"), 2, b"--dtype fp8"),
        (("ball.obj", "red - red"), 2, b"cancel"),
    ],
)
def test_what_can_not_be_is_said_in_a_line(mmx_in_process, space, ball, words, code: int, says: bytes) -> None:
    Path("words.txt").write_text("no mesh at all")
    Path("taken.glb").write_bytes(b"mine")
    if words[0] == ".":
        os.mkdir("empty")
        words = ("empty", *words[1:])
    got, _, err = mmx_in_process("avatar", *words)
    assert (got, says in err) == (code, True), err
    assert Path("taken.glb").read_bytes() == b"mine" and not Path("ball-avatar.glb").exists()


def test_a_space_without_gradients_is_refused(mmx_in_process, space, ball) -> None:
    space(replace(small_space(), pixels=None))
    code, _, err = mmx_in_process("avatar", ball, "red", *FAST)
    assert code == 4 and b"gives no gradients" in err


def test_a_preview_is_kept_and_the_front_is_where_it_looks_the_part(mmx_in_process, space, ball) -> None:
    code, out, _ = mmx_in_process("avatar", ball, "red", "--preview", "p.png", "--front", 90, "--json", *FAST)
    assert code == 0 and json.loads(out)["front"] == pytest.approx(90)
    with Image.open("p.png") as shown:
        assert shown.width > 3 * shown.height
    assert Path("ball-avatar.glb").exists()


def test_crops_that_hardly_show_it_do_not_count() -> None:
    vectors = torch.eye(3)
    cover = torch.tensor([0.04, 0.5, 1.0])[:, None, None, None].expand(3, 1, 2, 2)
    assert torch.allclose(weighted(vectors, cover), torch.tensor([0.0, 0.5, 1.0]) / 1.25**0.5)


def test_crops_are_the_parts_that_they_say() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous()
    views = Views(ramp, ramp[:, :1])
    boxes = torch.tensor([[[0.25, -0.5, 0.5], [1.0, 0.0, 0.0]]])
    part = cropped(views, boxes, 16).pixels
    assert part.shape == (2, 3, 16, 16)
    assert float(part[0].mean()) == pytest.approx(0.25, abs=0.01)
    assert float(part[0].max() - part[0].min()) == pytest.approx(0.25, abs=0.02)
    assert float(part[1].mean()) == pytest.approx(0.5, abs=0.01)
    draw = torch.Generator().manual_seed(0)
    drawn = boxes_of(Looking(local=200), 3, 0, draw)
    assert (drawn[..., 1:].abs() + drawn[..., :1] <= 1 + 1e-6).all() and drawn[..., 0].min() >= 0.3


def test_roughness_is_the_laplacians() -> None:
    """Against a dense matrix."""
    ball = trimesh.creation.icosphere(1)
    surface = Topology.of(torch.tensor(ball.faces))
    offsets = torch.randn(len(ball.vertices), generator=torch.Generator().manual_seed(0)).double()
    adjacent = torch.zeros(len(offsets), len(offsets)).double()
    for a, b in ball.edges_unique:
        adjacent[a, b] = adjacent[b, a] = 1
    laplacian = torch.eye(len(offsets)) - adjacent / adjacent.sum(1, keepdim=True)
    assert float(roughness(offsets, surface)) == pytest.approx(float((100 * laplacian @ offsets).square().mean()))
    assert float(roughness(torch.ones_like(offsets), surface)) == pytest.approx(0)


def test_points_move_along_their_normals() -> None:
    ball = trimesh.creation.icosphere(2)
    body = Body.of(torch.tensor(ball.vertices)[None].float(), torch.tensor(ball.faces))
    moved = body.moved(torch.full((len(ball.vertices),), 0.1), 0)
    assert torch.allclose(moved.norm(dim=-1), torch.tensor(1.1), atol=1e-3)
