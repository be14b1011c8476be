"""Meshes in and out: what each format holds, what is mended, what is refused in one line."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import trimesh

from mmx.errors import InputError, UsageError
from mmx.media.animation import gif_bytes, mp4_bytes
from mmx.media.mesh import TriangleMesh, brought_to, motion_of, read_mesh, welded
from mmx.media.mesh_files import WRITERS, Painted, linear
from mmx.media.provenance import SCHEMA, read_record
from tests.small_mesh import QUAD, exported, glb_colours

RECORD = {
    "schema": SCHEMA, "version": "0", "synthetic": True, "command": "avatar", "inputs": [], "layout": "glb",
    "indices": [0], "settings": {}, "space": {"name": "ü", "sha256": "0"}, "heard": [], "libraries": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["obj", "glb", "ply", "stl", "off"])
def test_every_format_gives_the_same_surface(kind: str) -> None:
    ball = trimesh.creation.icosphere(1)
    mesh = welded(read_mesh(exported(ball, kind), f"ball.{kind.upper()}"))
    assert mesh.frames.shape == (1, 42, 3) and mesh.faces.shape == (80, 3) and mesh.notes == ()
    again = trimesh.Trimesh(mesh.frames[0], mesh.faces, process=False)
    assert again.is_watertight and again.volume == pytest.approx(ball.volume, rel=1e-4)
    assert welded(read_mesh(exported(ball, kind), "stdin")).faces.shape == (80, 3)  # by what is in it


def test_quads_are_triangles() -> None:
    assert read_mesh(QUAD, "quad.obj").faces.shape == (2, 3)


POINTS = b"v 0 0 0\nv 1 0 0\nv 1 1 0\n"


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (POINTS, "a.obj", "no triangles"),
        (b"", "a.obj", "no triangles"),
        (POINTS + b"f 1 2 9\n", "a.obj", "damaged"),
        (b"v 0 0 nan\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", "a.obj", "1 of its points are no numbers"),
        (b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "a.obj", "in one place"),
        (exported(trimesh.creation.box(), "glb")[:600], "a.glb", "damaged"),
        (b"junk", "a.ply", "damaged"),
        (b"RIFF", "a.wav", "not a mesh"),
    ],
)
def test_what_is_no_mesh_is_said_so(data: bytes, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        read_mesh(data, name)
    assert str(error.value).startswith(f"{name}:") and "\n" not in str(error.value)


def test_welding_leaves_out_what_has_no_area_and_tells_of_edges_with_three_sides() -> None:
    faces = b"f 1 2 3\nf 1 2 4\nf 1 2 5\nf 1 1 2\n"
    data = POINTS + b"v 0 1 1\nv 0 -1 1\nv 9 9 9\n" + faces
    mesh = welded(read_mesh(data, "fan.obj"))
    assert mesh.frames.shape == (1, 5, 3) and len(mesh.faces) == 3
    assert any("1 triangles without an area" in note for note in mesh.notes)
    assert any("not a manifold: 1 edges" in note for note in mesh.notes)
    with pytest.raises(InputError, match="none of its triangles"):
        welded(read_mesh(POINTS + b"f 1 1 2\n", "flat.obj"))


def test_a_coarse_mesh_is_divided_and_its_surface_stays() -> None:
    box = welded(read_mesh(exported(trimesh.creation.box(), "obj"), "box.obj"))
    fine = brought_to(box, 200)
    assert len(fine.faces) == 192 and fine.notes
    solid = trimesh.Trimesh(fine.frames[0], fine.faces, process=False)
    assert solid.is_watertight and solid.volume == pytest.approx(1) and solid.area == pytest.approx(6)
    assert len(brought_to(box, None).faces) == 3072 and brought_to(box, 12) is box


def test_a_fine_mesh_is_decimated_and_all_frames_of_a_motion_alike() -> None:
    pytest.importorskip("fast_simplification")
    ball = trimesh.creation.icosphere(3)
    rest = TriangleMesh(ball.vertices[None].astype(np.float32), ball.faces)
    grown = TriangleMesh(rest.frames * np.float32([1, 2, 1]), rest.faces)
    mesh = brought_to(welded(motion_of([("a", rest), ("b", grown)])), 300)
    assert len(mesh.faces) <= 300 and mesh.frames.shape[0] == 2 and "decimated to" in mesh.notes[-1]
    for frame, stretch in ((0, 1), (1, 2)):
        solid = trimesh.Trimesh(mesh.frames[frame], mesh.faces)
        assert solid.is_watertight and solid.volume == pytest.approx(stretch * ball.volume, rel=0.1)
    with pytest.raises(InputError, match=r"b: its triangles are not those of a"):
        motion_of([("a", rest), ("b", TriangleMesh(rest.frames[:, :10], rest.faces))])


def test_a_huge_mesh_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = trimesh.creation.icosphere(2)
    mesh = TriangleMesh(ball.vertices[None].astype(np.float32), ball.faces)
    monkeypatch.setattr("mmx.media.mesh.MOST", 100)
    with pytest.raises(InputError, match="320 triangles are more than 100") as error:
        brought_to(mesh, None)
    assert "--faces" in error.value.hint
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="fast_simplification") as missing:
        brought_to(mesh, 50)
    assert missing.value.hint == "pip install 'mmx[avatar]'"


def painted() -> Painted:
    ball = trimesh.creation.icosphere(1)
    colours = (ball.vertices + 1) / 2
    return Painted(ball.vertices.astype(np.float32), ball.vertex_normals, ball.faces, colours)


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_is_written_is_read_by_another_program_and_says_what_made_it(suffix: str) -> None:
    mesh = painted()
    data = WRITERS[suffix](mesh, RECORD)
    found = trimesh.load_mesh(io.BytesIO(data), file_type=suffix[1:], process=False)
    assert np.allclose(found.vertices, mesh.points, atol=1e-6) and np.array_equal(found.faces, mesh.faces)
    if suffix == ".glb":
        assert np.allclose(glb_colours(data), linear(mesh.colours))
    else:
        assert np.abs(found.visual.vertex_colors[:, :3] / 255 - mesh.colours).max() < 0.01
    assert read_record(data, "a") == RECORD and data == WRITERS[suffix](mesh, RECORD)


def test_a_glb_without_a_record_or_cut_short_is_said_so() -> None:
    with pytest.raises(InputError, match="does not say that mmx made it"):
        read_record(exported(trimesh.creation.box(), "glb"), "a.glb")
    with pytest.raises(InputError, match="not a whole GLB"):
        read_record(WRITERS[".glb"](painted(), RECORD)[:100], "a.glb")
    with pytest.raises(InputError, match="decoder is not what"):
        read_record(WRITERS[".ply"](painted(), {n: v for n, v in RECORD.items() if n != "space"}), "a.ply")


def test_animations_carry_comments_of_any_length() -> None:
    from PIL import Image

    comment = json.dumps(RECORD | {"heard": ["x" * 3000]}, ensure_ascii=False)
    frames = [Image.new("RGB", (33, 32), (k * 40, 0, 90)) for k in range(5)]
    for write in (gif_bytes, mp4_bytes):
        data = write(frames, 0.1, comment)
        assert read_record(data, "a")["heard"] == ["x" * 3000] and data == write(frames, 0.1, comment)
    with Image.open(io.BytesIO(gif_bytes(frames, 0.1, comment))) as shown:
        assert shown.n_frames == 5 and shown.info["duration"] == 100


@pytest.mark.parametrize("side", [50, 64])
def test_moving_pictures_of_any_size_are_the_same_bytes_whatever_lies_in_memory(side: int) -> None:
    """At sides that macroblocks don't fill x264 once took decisions by memory that nobody had written."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for _ in range(6):
        coarse = rng.integers(0, 255, (-(-side // 8), -(-side // 8), 3), dtype=np.uint8)
        moved = [np.kron(np.roll(coarse, k, 0), np.ones((8, 8, 1), np.uint8))[:side, :side] for k in range(24)]
        frames, made = [Image.fromarray(one) for one in moved], set()
        for fill in range(6):
            dirt = [np.full(int(rng.integers(1000, 400_000)), 40 * fill, np.uint8) for _ in range(40)]
            del dirt
            made.add(mp4_bytes(frames, 0.1, ""))
        assert len(made) == 1


def test_a_texture_shows_each_point_in_its_colour() -> None:
    pytest.importorskip("xatlas")
    from PIL import Image

    from mmx.guided.bake import baked

    mesh = painted()
    done = baked(mesh, mesh.points, lambda points: (points + 1) / 2, 256)
    with Image.open(io.BytesIO(done.texture)) as picture:
        texels = np.asarray(picture.convert("RGB")) / 255
    middles = done.places[done.faces].mean(1) * 256
    shown = texels[middles[:, 1].astype(int), middles[:, 0].astype(int)]
    assert np.abs(shown - (done.points[done.faces].mean(1) + 1) / 2).max() < 0.06
    found = trimesh.load_mesh(io.BytesIO(WRITERS[".glb"](done, RECORD)), file_type="glb", process=False)
    assert np.abs(found.visual.uv * [1, -1] + [0, 1] - done.places).max() < 1e-5
