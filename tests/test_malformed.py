"""1,000 malformed inputs, made from a seed: each loader reads them or says what is wrong, soon, in little memory, and
leaves nothing behind.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as safetensors

from mmx.bridges.sound import SoundBridge
from mmx.data.manifest import read_manifest
from mmx.data.shards import located, write_shard
from mmx.decoders.load import load_decoder
from mmx.errors import MmxError
from mmx.media.audio import Waveform, read_audio, wav_bytes
from mmx.media.given import Given, Job
from mmx.media.image import png_bytes, read_image
from mmx.media.provenance import SCHEMA, dumps, embed_wav, read_record, text_chunks
from mmx.media.tensors import draw_array, read_tensors
from mmx.media.video import moments
from mmx.models.store import Located
from mmx.options import Settings
from mmx.serving.query import Part, job_of
from mmx.serving.wire import ANYWHERE, Asked, asked_of, pack_job, unpack, unpack_job
from mmx.spaces.index import Index, writing
from tests.conftest import RATE, tone
from tests.small_space import small_space
from tests.sounds import av_encoded, encoded, rising
from tests.test_video import video

SEED = 20260101
CODES = (2, 3, 4, 5, 7)  # of what is wrong with an input, in the README
SECONDS, MEGABYTES = 20, 600  # that reading one malformed input may take at most; what is usual is far below
COUNTS = {
    "sounds": 220,
    "arrays": 20,
    "pictures": 240,
    "videos": 40,
    "records": 120,
    "manifests": 100,
    "shards": 60,
    "bridges": 40,
    "decoders": 40,
    "indexes": 60,
    "requests": 60,
}
ODD = (
    None,
    -1,
    0,
    1e308,
    float("nan"),
    True,
    "",
    "x" * 3000,
    "../../etc/passwd",
    [],
    {},
    [[[]]],
    2**70,
    "\ud800",
    "\0",
)


def test_there_are_a_thousand() -> None:
    assert sum(COUNTS.values()) == 1000


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with something wrong with it: cut, flipped, overwritten, stretched, doubled, or only its head left."""
    data, at = bytearray(data), rng.randrange(max(1, len(data)))
    kind = rng.randrange(9)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(rng.choice((1, 4, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:  # numbers in a header, as large or as small as they get
        place, width = rng.randrange(min(96, len(data))), rng.choice((1, 2, 4, 8))
        data[place : place + width] = rng.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * width
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.choice((1, 7, 300)))
    elif kind == 4:
        del data[at : at + rng.choice((1, 8, 200))]
    elif kind == 5:
        data[at:at] = data[max(0, at - 100) : at + 100]
    elif kind == 6:
        return bytes(data[:16]) + rng.randbytes(200)
    elif kind == 7:
        return bytes(len(data)) if rng.random() < 0.5 else b""
    else:
        data[at:] = bytes(len(data) - at)
    return bytes(data)


def altered(value: Any, rng: random.Random) -> Any:
    """JSON with something else in one place, or without it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        if rng.random() < 0.2:
            return {key: inner for key, inner in value.items() if key != name}
        return value | {name: altered(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], altered(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD)


def either(about: Any, rng: random.Random) -> bytes:
    """JSON, altered in a place, or damaged as bytes."""
    text = json.dumps(altered(about, rng) if rng.random() < 0.7 else about).encode()
    return text if rng.random() < 0.7 else damaged(text, rng)


@pytest.fixture
def read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, Callable[[random.Random], Any]], int]]:
    """Runs what reads a malformed input, again and again, with everything held against it that the module says."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)

    def stop(*_: object) -> None:
        raise AssertionError(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)

    def run(kind: str, once: Callable[[random.Random], Any]) -> int:
        peak, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
        for number in range(COUNTS[kind]):
            signal.alarm(SECONDS)
            try:
                once(random.Random(f"{SEED}/{kind}/{number}"))
            except MmxError as error:
                refused += 1
                said = f"{kind} {number}: {error.message}"
                assert error.exit_code in CODES and error.message and "bug" not in error.message, said
                assert len(error.message.splitlines()) == 1 and len(error.message) < 4000, said
            except Exception as error:
                raise AssertionError(f"{kind} {number}: {type(error).__name__}: {error}") from error
            finally:
                signal.alarm(0)
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < MEGABYTES
        assert not list(scratch.iterdir()), "something was left behind"
        return refused

    yield run
    signal.signal(signal.SIGALRM, before)


def test_sounds(read) -> None:
    wave = rising(0.2)
    files = [encoded(wave, RATE, kind) for kind in ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64")]
    files += [av_encoded(wave, RATE, kind, codec) for kind, codec in (("mp3", "libmp3lame"), ("matroska", "aac"))]
    refused = read("sounds", lambda rng: read_audio(damaged(rng.choice(files), rng), sample_rate=RATE, window=5.0))
    assert refused > 40


def test_pictures(read) -> None:
    picture, files = Image.effect_noise((40, 30), 90).convert("RGB"), []
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        buffer = io.BytesIO()
        picture.save(buffer, format=kind)
        files.append(buffer.getvalue())
    refused = read("pictures", lambda rng: read_image(io.BytesIO(damaged(rng.choice(files), rng)), name="x"))
    assert refused > 40


def test_arrays(read) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(12.0).reshape(3, 4))
    whole = safetensors({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)})
    files = [("x.npy", buffer.getvalue()), ("x.safetensors", whole), ("x.csv", b"a,b\n1,2.5\n3,4\n")]

    def once(rng: random.Random) -> None:
        name, data = rng.choice(files)
        for array in read_tensors(damaged(data, rng), name):
            assert array.line()
            draw_array(array)

    assert read("arrays", once) > 5


def test_videos(read, tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", seconds=1.0).read_bytes()

    def once(rng: random.Random) -> None:
        path = tmp_path / "x.mp4"
        path.write_bytes(damaged(whole, rng))
        for _ in moments(path, every=0.5, window=0.5, sample_rate=RATE, needs_sound=False):
            pass

    assert read("videos", once) > 5


def record() -> dict[str, Any]:
    given = {"role": "source", "name": "x.wav", "sha256": "0" * 64, "weight": 1.0}
    own = {"schema": SCHEMA, "version": "0", "synthetic": True, "command": "sound2img", "inputs": [given, given]}
    own |= {"layout": "single", "indices": [0], "settings": {"seed": 0}, "heard": [[["dog", 0.5]]], "libraries": {}}
    own |= {"machine": {"threads": 1, "cpu": "AVX2"}}
    return own | {role: {"name": f"starter/{role}", "sha256": "0"} for role in ("bridge", "decoder")}


def test_provenance(read) -> None:
    sound = wav_bytes(Waveform(tone(0.05), RATE))

    def once(rng: random.Random) -> None:
        about = altered(record(), rng) if rng.random() < 0.6 else record()
        texts = text_chunks(record()) | {"mmx": dumps(about).encode("utf8", "replace").decode()}
        made = png_bytes(Image.new("RGB", (8, 8)), texts)
        if rng.random() < 0.5:
            made = embed_wav(sound, record()).replace(b"sound2img", rng.choice((b"sound", b'"},[', b"\xff" * 9)))
        found = read_record(damaged(made, rng) if rng.random() < 0.5 else made, "x")
        assert found["schema"] == SCHEMA and isinstance(found["inputs"], list)

    assert read("records", once) > 40


def test_manifests(read, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(Waveform(tone(0.1), RATE)))
    (tmp_path / "b.png").write_bytes(png_bytes(Image.new("RGB", (8, 8))))
    rows = [{"source": "a.wav", "target": "b.png", "split": "train", "weight": 1.0, "label": "x"}] * 3
    sheet = b"source,target,split\r\n" + b'a.wav,"b.png",train\r\n' * 3

    def once(rng: random.Random) -> None:
        path = tmp_path / rng.choice(("x.jsonl", "x.csv", "x.tsv"))
        lines = b"\n".join(either(row, rng) for row in rows)
        path.write_bytes(lines if path.suffix == ".jsonl" else damaged(sheet, rng))
        read_manifest(str(path), "sound2img")

    assert read("manifests", once) > 30


def test_shards(read, tmp_path: Path) -> None:
    write_shard(tmp_path / "whole.tar", [(str(k), {"jpg": b"x" * 99, "json": b'{"a": [1]}'}) for k in range(3)])
    whole = (tmp_path / "whole.tar").read_bytes()

    def once(rng: random.Random) -> None:
        path = tmp_path / "x.tar"
        path.write_bytes(damaged(whole, rng))
        list(located(str(path)))

    assert read("shards", once) > 10


def spoiled(folder: Path, name: str, rng: random.Random) -> None:
    """One file of a model's folder, damaged; its sums go, which would find everything."""
    path = folder / name
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    data = path.read_bytes()
    path.write_bytes(either(json.loads(data), rng) if name.endswith(".json") else damaged(data, rng))


def test_bridges(read, one_step_models, tmp_path: Path) -> None:
    def once(rng: random.Random) -> None:
        folder = tmp_path / "x"
        shutil.copytree(one_step_models[0], folder)
        try:
            spoiled(folder, rng.choice(("config.json", "model.safetensors")), rng)
            SoundBridge.load(folder)
        finally:
            shutil.rmtree(folder)

    assert read("bridges", once) > 20


def test_decoders(read, one_step_models, tmp_path: Path) -> None:
    names = [
        path.relative_to(one_step_models[1]).as_posix()
        for path in sorted(one_step_models[1].rglob("*"))
        if path.suffix in (".json", ".safetensors")
    ]

    def once(rng: random.Random) -> None:
        folder = tmp_path / "x"
        shutil.copytree(one_step_models[1], folder)
        try:
            spoiled(folder, rng.choice(names), rng)
            load_decoder(Located("x", folder), "image")
        finally:
            shutil.rmtree(folder)

    assert read("decoders", once) > 10


def test_indexes(read, tmp_path: Path) -> None:
    space, whole = small_space(), tmp_path / "whole.idx"
    rows = [{"modality": "sound", "path": f"{number}.wav"} for number in range(8)]
    with writing(whole, space) as index:
        dim = index.dim
        index.changed((), rows, np.eye(8, dim, dtype=np.float32), 4)
    names = [path.relative_to(whole).as_posix() for path in sorted(whole.rglob("*.*"))]

    def once(rng: random.Random) -> None:
        folder = tmp_path / "x.idx"
        shutil.copytree(whole, folder)
        try:
            path = folder / rng.choice(names)
            data = path.read_bytes()
            path.write_bytes(either(json.loads(data), rng) if path.name == "index.json" else damaged(data, rng))
            found = Index.open(folder)
            assert found.sums.shape[1] and sum(found.counts.values()) >= 0
        finally:
            shutil.rmtree(folder)

    assert read("indexes", once) > 15


def test_requests(read) -> None:
    asked = Asked("sound2img", {"bridge": None, "decoder": "x"}, ANYWHERE)
    whole = pack_job(asked, Job((Given("a.wav", b"RIFF" * 9), Given("b.wav", b"x", "mix", 0.5)), Settings()))
    line, _, blobs = whole.partition(b"\n")

    def once(rng: random.Random) -> None:
        if rng.random() < 0.3:
            name, value = rng.choice(("seed", "n", "gain", "steps", "size", "x")), str(rng.choice(ODD))
            part = Part(rng.choice(("source", "mix:x", "mix:9", "else")), "x", damaged(b"RIFF" * 20, rng))
            job_of("sound2img", {name: value}, [part])
            return
        header, found = unpack(either(json.loads(line), rng) + b"\n" + blobs)
        assert asked_of(header) and unpack_job(header, found)

    assert read("requests", once) > 20
