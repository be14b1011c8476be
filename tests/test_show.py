"""`mmx show` of texts, arrays, videos and meshes: the numbers are those of the tower and of the file."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.numpy import load_file
from safetensors.numpy import save as safetensors
from safetensors.torch import save as torch_safetensors

from mmx.decoders.towers import TextReader
from mmx.media.clip import Thinned, read_clip
from mmx.media.mesh_files import Painted, glb_bytes
from mmx.media.mesh_look import read_colours
from mmx.media.show import palette
from mmx.media.tensors import draw_array, read_tensors
from mmx.models.store import assets
from mmx.models.subwords import EMBEDDINGS, SPACE, subwords

TEACHER = assets() / "starter" / "image" / "teacher"


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_subwords_are_what_the_tower_reads_and_their_neighbours_a_naive_searchs() -> None:
    text = "a photo of a seashore"
    reader = TextReader.load(TEACHER / "tokenizer")
    ids = reader([text])[0][0].tolist()[1:-1]  # without the marks of start and end
    found = subwords(text)
    assert [one.number for one in found] == ids and "".join(one.piece for one in found).replace(
        "_", " "
    ).strip() == text
    table = load_file(TEACHER / "text_encoder" / "model.safetensors")[EMBEDDINGS].astype(np.float64)
    for one in found[:3]:
        own = table[one.number]
        cosines = {
            k: float(row @ own / (np.linalg.norm(row) * np.linalg.norm(own) + 1e-12)) for k, row in enumerate(table)
        }
        del cosines[one.number]
        best = sorted(cosines, key=lambda k: -cosines[k])[:3]
        names = [reader.tokenizer.id_to_token(k).replace(SPACE, "_") for k in best]
        assert [piece for piece, _ in one.near] == names
        assert [cosine for _, cosine in one.near] == pytest.approx([cosines[k] for k in best], abs=1e-3)


def test_arrays_are_told_and_drawn() -> None:
    values = np.array([[0.0, 1.0], [0.5, np.nan]], np.float32)
    (array,) = read_tensors(npy(values), "x")
    assert array.line() == "array  2 x 2  float32  min 0  mean 0.5  max 1  std 0.4082  1 not finite"
    drawn = np.asarray(draw_array(array))
    assert drawn.shape == (512, 512, 3)
    assert drawn[0, 0].tolist() == palette()[0].tolist() and drawn[0, -1].tolist() == palette()[255].tolist()
    assert drawn[-1, 0].tolist() == palette()[127].tolist() and drawn[-1, -1].tolist() == [128] * 3
    assert draw_array(read_tensors(npy(np.zeros((2, 3, 5000))), "x")[0]).size == (2048, 6)
    assert read_tensors(b"3\n3\n", "x")[0].line() == "array  2  int64  min 3  mean 3  max 3  std 0"
    both = read_tensors(safetensors({"b": np.ones(3, np.int8), "a": np.zeros((1, 2), np.float32)}), "x.safetensors")
    assert [(one.name, one.shape, one.dtype) for one in both] == [("a", (1, 2), "F32"), ("b", (3,), "I8")]
    (half,) = read_tensors(torch_safetensors({"w": torch.ones(2, 2, dtype=torch.bfloat16)}), "x.safetensors")
    assert half.line() == "w  2 x 2  BF16" and half.values is None


def test_show_by_what_it_is_given(mmx_in_process, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("two dogs\n")
    (tmp_path / "a.npy").write_bytes(npy(np.eye(4)))
    (tmp_path / "b.npy").write_bytes(npy(np.array([{}], object)))
    code, out, _ = mmx_in_process("show", "two dogs")
    assert code == 0 and out.decode().splitlines()[0].split()[0].strip("_") == "two"
    assert mmx_in_process("show", "words.txt")[1].startswith(out.rstrip(b"\n"))
    code, _, err = mmx_in_process("show", "a.npy", "-o", "a.png")
    assert code == 0 and b"4 x 4" in err and Image.open("a.png").size == (512, 512)
    for given, says in (("b.npy", b"of type object"), ("none", b"no such file"), ("no*thing x", b"no such file")):
        code, _, err = mmx_in_process("show", given)
        assert code in (2, 3) and says in err, err.decode()
    code, _, err = mmx_in_process("show", "two dogs", "-o", "x.png")
    assert code == 2 and b"nothing to draw" in err


def moving(path: Path) -> Path:
    """20 frames of 48 x 64 at 10 a second: a white bar of 8 pixels that goes 3 to the right in each."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for k in range(20):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[:, 3 * k : 3 * k + 8] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode())
    return path


def test_a_video_is_told_by_its_frames_and_sliced_through_time(mmx_in_process, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = moving(tmp_path / "a.mkv").read_bytes()
    clip = read_clip(data, "a.mkv")
    assert clip.shape == (20, 48, 64, 3) and clip.fps == pytest.approx(10) and clip.seconds == pytest.approx(2.0)
    assert len(clip.frames) == 8 and clip.lines.shape == (20, 240, 3)
    for k, line in enumerate(clip.lines):  # the bar's middle, in a line of 240 for 64 pixels
        assert abs(np.flatnonzero(line[:, 0] > 128).mean() / 240 * 64 - (3 * k + 3.5)) < 1
    code, _, err = mmx_in_process("show", "a.mkv", "-o", "a.png")
    assert code == 0 and b"20 x 48 x 64 x 3 (T x H x W x C)  10 frames a second  2.00 s" in err
    assert Image.open("a.png").size[0] == 960
    assert mmx_in_process("show", "a.mkv", "-o", "a.gif")[0] == 2 and not Path("a.gif").exists()
    Path("plain").write_bytes(data)  # by what is in it
    assert mmx_in_process("show", "plain", "-o", "b.png")[0] == 0
    assert Path("b.png").read_bytes() == Path("a.png").read_bytes()


def test_evenly_chosen_items_of_any_number() -> None:
    for count in (0, 1, 7, 16, 1000):
        some = Thinned[int](8)
        for k in range(count):
            some.add(k if some.wants else None)
        assert some.kept == list(range(0, count, some.every)) and len(some.kept) < 16
        assert len(some.kept) >= min(count, 8)


def test_a_mesh_is_told_and_seen_from_around(mmx_in_process, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmx.guided.turntable.TURN", 3)
    box = trimesh.creation.box((1, 2, 3))
    Path("box.stl").write_bytes(box.export(file_type="stl"))
    code, _, err = mmx_in_process("show", "box.stl", "-o", "box.png")
    said = err.decode()
    assert code == 0 and "12 triangles  1 part  watertight" in said and "in 8 places" in said
    assert "x -0.5 to 0.5  y -1 to 1  z -1.5 to 1.5  area 22  volume 6" in said
    shown = np.asarray(Image.open("box.png").convert("RGB")).astype(int)
    front, side = shown[:256, :256].min(2) < 250, shown[:256, 2 * 258 : 2 * 258 + 256].min(2) < 250
    assert side.any(0).sum() > 1.5 * front.any(0).sum()  # as deep as thrice its width
    box.faces = box.faces[:-1]
    box.visual.vertex_colors = np.tile(np.uint8([200, 0, 0, 255]), (8, 1))
    Path("open").write_bytes(box.export(file_type="ply"))
    code, _, err = mmx_in_process("show", "open", "-o", "open.gif")
    assert code == 0 and b"not watertight: 3 edges at holes" in err and b"volume" not in err
    with Image.open("open.gif") as turning:
        assert turning.n_frames == 3
        colour = np.asarray(turning.convert("RGB"))[128, 128]
    assert colour[0] > 80 and colour[1] < 10
    Path("cut.glb").write_bytes(b"glTF" + bytes(40))
    assert mmx_in_process("show", "cut.glb")[0] == 3


def test_a_gltfs_colours_are_light() -> None:
    mesh = trimesh.creation.icosphere(1)
    colours = (mesh.vertices + 1) / 2
    record = {"version": "0", "command": "avatar", "synthetic": True}
    data = glb_bytes(Painted(mesh.vertices.astype(np.float32), mesh.vertex_normals, mesh.faces, colours), record)
    assert np.abs(read_colours(data, "a.glb", len(colours)) - colours).max() < 1e-3
    assert read_colours(data, "a.glb", 5) is None
