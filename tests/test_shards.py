"""The one reader of tars: local members by their places, in memory, and streamed are the same samples."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import mmx.data.spoken_captions
import mmx.data.synthesisers
from mmx.data.photos import load_photos, load_sounds
from mmx.data.shards import find_shards, located, stream, write_shard
from mmx.data.spoken_captions import load_spoken, make_corpus
from mmx.errors import InputError
from mmx.media.audio import Waveform
from tests.conftest import RATE, tone
from tests.small_data import png, wav


def test_all_ways_to_read_a_tar_give_the_same_samples(tmp_path: Path) -> None:
    """Folders inside, suffixes in capitals and with dots, a .json anywhere in its sample, things that are no files."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(_folder("deep"))
        for name, data in (
            ("deep/a.JPG", b"j"), ("deep/a.seg.png", b"s"), ("deep/a.json", b'{"k": 1}'),
            ("deep/b.json", b'{"k": 2}'), ("deep/b.wav", b"wave"), ("c.wav", b""), ("c.jpg", b"jj"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    expected = [
        ("deep/a", {"jpg": b"j", "seg.png": b"s"}, {"k": 1}),
        ("deep/b", {"wav": b"wave"}, {"k": 2}),
        ("c", {"wav": b"", "jpg": b"jj"}, {}),
    ]
    fsspec.filesystem("memory").pipe("/mmx/one.tar", path.read_bytes())
    for url in (str(path), "memory://mmx/one.tar", f"file://{path}"):
        assert [(sample.key, sample.members, sample.meta) for sample in stream(url)] == expected
    for sample, (key, members, meta) in zip(located(str(path)), expected, strict=True):
        read = {suffix: item.read() for suffix, item in sample.members.items()}
        assert (sample.key, read, sample.meta) == (key, members, meta)
    assert [sample.of("sound") for sample in stream(str(path))] == [None, b"wave", b""]


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize("read", [load_photos, load_sounds])
@pytest.mark.parametrize("data", [b"not a tar at all" * 99, b"{cut}", b"{json}"])
def test_a_broken_shard_is_named_however_it_is_read(tmp_path: Path, read, data: bytes) -> None:
    prefix = "images" if read is load_photos else "sounds"
    path = tmp_path / f"{prefix}-000.tar"
    files = {"png": png(7), "wav": wav(300.0)}
    write_shard(path, [("a", files | {"json": b"[1]" if data == b"{json}" else b"{}"})])
    path.write_bytes(path.read_bytes()[:600] if data == b"{cut}" else data if data != b"{json}" else path.read_bytes())
    with pytest.raises(InputError, match=rf"{prefix}-000\.tar: the shard can't be read"):
        read(tmp_path, 16) if read is load_photos else read(tmp_path)
    with pytest.raises(InputError, match=r"no nothing-\*\.tar"):
        find_shards(tmp_path, "nothing")


def test_photos_and_sounds_come_with_their_metadata(tmp_path: Path) -> None:
    samples = [
        (f"{k}", {"png": png(k), "json": json.dumps({"split": "val" if k else "train"}).encode()}) for k in range(3)
    ]
    write_shard(tmp_path / "images-000.tar", samples[:2])
    write_shard(tmp_path / "images-001.tar", samples[2:])
    photos = load_photos(tmp_path, 8)
    assert [meta["key"] for meta in photos.split("val").meta] == ["1", "2"] and photos.pixels.shape == (3, 8, 8, 3)
    assert np.array_equal(photos.pixels[2], np.asarray(Image.open(io.BytesIO(png(2))).resize((8, 8))))


def test_a_corpus_is_made_to_the_same_bytes_and_read_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mmx.data.spoken_captions, "SHARD", 5)
    monkeypatch.setattr(mmx.data.synthesisers, "flites", lambda: ["v"])
    monkeypatch.setattr(mmx.data.synthesisers, "flite", lambda text, voice: Waveform(tone(0.1, 200 + len(text)), RATE))
    metas = [{"synset": f"n{k}", "words": f"thing{k}, other", "concept": "c"} for k in range(2)]
    photos = [(f"{k}", {"png": png(k), "json": json.dumps(meta).encode()}) for k, meta in enumerate(metas)]
    write_shard(tmp_path / "images-000.tar", [*photos, ("bare", {"png": png(9)})])
    for name in ("one", "two"):
        assert make_corpus(tmp_path, tmp_path / name, ["v"], ["It rains.", "It snows.", "Hm."]) == 15
    shards = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
    assert [path.name for path in shards[0]] == ["sentences-000.tar", *(f"spoken-00{k}.tar" for k in range(3))]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*shards, strict=True))
    *clips, rain, _, hm = load_spoken(tmp_path / "one")
    assert rain[1] | {"split": ""} == {"text": "It rains.", "voice": "v", "split": "", "key": "000000"} | {
        "kind": "sentences"
    }
    assert np.abs(np.fft.rfft(hm[0].samples)).argmax() * RATE / len(hm[0].samples) == pytest.approx(203, abs=10)
    assert [meta["key"] for _, meta in clips] == [f"{k:06d}" for k in range(12)]
    assert [meta["split"] for _, meta in clips].count("val") == 1 and {meta["name"] for _, meta in clips} == {
        "thing0",
        "thing1",
    }
    assert all(abs(len(wave.samples) - len(tone(0.1))) <= 1 for wave, _ in clips)
