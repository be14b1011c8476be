"""`mmx show` of texts and arrays: the numbers are those of the tower and of the file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.numpy import save as safetensors
from safetensors.torch import save as torch_safetensors

from mmx.decoders.towers import TextReader
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
