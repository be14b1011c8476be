"""Shards behind a URL: read once, kept nowhere, and trained on as if they were local."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import torch

from mmx.data.manifest import read_manifest
from mmx.data.pairs import load_pairs
from mmx.errors import InputError, NetworkError, UsageError
from mmx.training.engine.parallel import Team
from tests.conftest import ROOT
from tests.small_data import COMMON, Bytes, losses, png, wav, write_shard


def both(number: int, **meta: object) -> dict[str, bytes]:
    return {"wav": wav(200 + 9 * number), "png": png(7 * number), "json": json.dumps(meta).encode()}


class Server(ThreadingHTTPServer):
    """Serves a folder; counts what is got of it; cuts a file short after `cut` bytes."""

    cut: int | None = None

    def __init__(self, folder: Path) -> None:
        self.got: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.got[self.path] += 1
        super().do_GET()

    def copyfile(self, source, outputfile) -> None:
        data = source.read()
        outputfile.write(data[: self.server.cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    for number in range(2):
        write_shard(
            tmp_path / "served" / f"a-00{number}.tar", {f"s{number}{k}": both(10 * number + k) for k in range(20)}
        )
    with Server(tmp_path / "served") as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def load(data: str, cache: Path, features: type = Bytes):
    return load_pairs(
        read_manifest(data, "sound2img", stream=True), features(), features(), Team(), cache=cache, quiet=True
    )


def count(loaded) -> int:
    return sum(len(pairs.sources) for pairs in (loaded.train, loaded.val) if pairs)


def test_streamed_shards_train_as_local_ones(mmx_in_process, tmp_path: Path, server: Server, debug_models) -> None:
    """The same bits; the second run asks for no shard; no shard is on the disk."""
    for name, data in (
        ("local", str(tmp_path / "served")),
        ("remote", f"{server.url}/a-{{000..001}}.tar"),
        ("again", f"{server.url}/a-{{000..001}}.tar?key=secret"),
    ):
        cache = tmp_path / ("cache-local" if name == "local" else "cache-remote")
        command = ["train-bridge", "sound2img", "--data", data, "--decoder", debug_models[1], "-o", tmp_path / name]
        code, _, err = mmx_in_process(*command, "--cache", cache, "--batch-size", "6", *COMMON)
        assert code == 0, err
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("local", "remote", "again")}
    assert weights["local"] == weights["remote"] == weights["again"]
    assert server.got == {"/a-000.tar": 1, "/a-001.tar": 1}  # and none with the key
    card = "".join((tmp_path / "again" / file).read_text() for file in ("README.md", "metrics.json"))
    assert "a-{000..001}.tar" in card and "secret" not in card
    assert not [path for path in (tmp_path / "cache-remote").rglob("*") if path.name.endswith(".tar")]
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("local", "remote")]
    assert metrics[0]["data_sha256"] == metrics[1]["data_sha256"] and metrics[0]["pairs"] == metrics[1]["pairs"]


def test_two_processes_stream_a_share_each(
    mmx_in_process, two_processes, tmp_path: Path, server: Server, one_step_models
) -> None:
    """Every shard is asked for once, and the losses are those of one process with the doubled batch."""
    command = ["train-bridge", "sound2img", "--data", f"{server.url}/a-{{000..001}}.tar", *COMMON]
    command += ["--decoder", str(one_step_models[1])]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def two(*line: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run([*two_processes, "-m", "mmx", *line], capture_output=True, env=environment, check=False)
        return done.returncode, done.stdout, done.stderr

    for name, start, size in (("two", two, "6"), ("one", mmx_in_process, "12")):
        own = ["-o", str(tmp_path / name), "--cache", str(tmp_path / f"cache-{name}"), "--batch-size", size]
        code, _, err = start(*command, *own)
        assert code == 0, err.decode()[-2000:]
        assert server.got == {"/a-000.tar": 1, "/a-001.tar": 1}
        server.got.clear()
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one[0] == pytest.approx(two[0], rel=1e-4) and one == pytest.approx(
        two, rel=1e-2
    )  # Adam's first steps are signs


def test_two_kinds_of_streamed_shards_are_paired_by_their_key(tmp_path: Path, server: Server) -> None:
    served = tmp_path / "served"
    write_shard(
        served / "sounds-0.tar",
        {f"s{k}": {"wav": wav(300 + k), "json": b'{"concept": "c%d"}' % (k % 2)} for k in range(6)},
    )
    write_shard(
        served / "images-0.tar", {f"i{k}": {"png": png(k), "json": b'{"concept": "c%d"}' % (k % 3)} for k in range(9)}
    )
    local = load_pairs(
        read_manifest(str(served), "sound2img"), Bytes(), Bytes(), Team(), cache=tmp_path / "l", quiet=True
    )
    loaded = load(f"{server.url}/{{sounds,images}}-0.tar", tmp_path / "r")
    assert loaded.manifest.label_names == local.manifest.label_names == ["c0", "c1"] and not loaded.train.direct
    for side in ("sources", "targets"):
        mine, theirs = getattr(loaded.train, side), getattr(local.train, side)
        assert torch.equal(mine.labels, theirs.labels) and len(mine) == {"sources": 6, "targets": 6}[side]
        assert torch.equal(mine.all(), theirs.all())


def test_a_sample_that_lacks_a_side_is_left_out(tmp_path: Path, server: Server) -> None:
    """Be it the first: the others are pairs of their own nevertheless, on a disk and behind a URL."""
    samples = {"alone": {"wav": wav(300)}, **{f"s{k}": both(k) for k in range(20)}, "last": {"png": png(99)}}
    write_shard(tmp_path / "served" / "d.tar", samples)
    for data in (str(tmp_path / "served" / "d.tar"), f"{server.url}/d.tar"):
        loaded = load(data, tmp_path / "c")
        assert loaded.train.direct and count(loaded) == 20


def test_a_shard_that_breaks_off_is_named_and_the_next_run_goes_on(tmp_path: Path, server: Server) -> None:
    data = f"{server.url}/a-{{000..001}}.tar"
    load(f"{server.url}/a-000.tar", tmp_path / "c")
    server.cut = 50_000
    with pytest.raises((NetworkError, InputError), match=r"a-001\.tar"):
        load(data, tmp_path / "c")
    server.cut = None
    server.got.clear()
    loaded = load(data, tmp_path / "c")
    assert server.got == {"/a-001.tar": 1} and count(loaded) == 40


def test_changed_shards_are_read_again_and_missing_ones_named(tmp_path: Path, server: Server) -> None:
    load(f"{server.url}/a-000.tar", tmp_path / "c")
    write_shard(tmp_path / "served" / "a-000.tar", {f"n{k}": both(100 + k) for k in range(8)})
    loaded = load(f"{server.url}/a-000.tar", tmp_path / "c")
    assert count(loaded) == 8
    with pytest.raises(NetworkError, match=r"a-009\.tar") as missing:
        load(f"{server.url}/a-009.tar?key=secret", tmp_path / "c")
    assert "secret" not in str(missing.value)
    with pytest.raises(NetworkError, match=r"a-000\.tar: .*[Cc]onnect"):
        load("http://127.0.0.1:9/a-000.tar", tmp_path / "c")


def test_a_file_system_that_is_not_installed_is_named(tmp_path: Path) -> None:
    fsspec.register_implementation("moon", "moonfs.MoonFileSystem", errtxt="Install moonfs to read the moon")
    for url in ("moon://crater/a-000.tar", "moon://crater/a-*.tar"):
        with pytest.raises(UsageError, match="Install moonfs"):
            load(url, tmp_path / "c")


def test_what_was_read_before_serves_without_a_network(tmp_path: Path, server: Server, capsys) -> None:
    data = f"{server.url}/a-000.tar"
    before = load(data, tmp_path / "c")
    server.shutdown()
    server.server_close()
    again = load_pairs(read_manifest(data, "sound2img", stream=True), Bytes(), Bytes(), Team(), cache=tmp_path / "c")
    assert "can't be reached; going on" in capsys.readouterr().err
    assert torch.equal(before.train.sources.rows, again.train.sources.rows) and count(again) == 20
    with pytest.raises(NetworkError):
        load(data, tmp_path / "other")


def test_what_cannot_be_used_is_counted(tmp_path: Path, server: Server) -> None:
    samples = {f"s{k:02d}": both(k) for k in range(40)}
    samples["s07"]["png"] = b""
    samples["s08"]["bin"] = bytes(6 << 20)  # more than is read at once, from a server that can't seek
    write_shard(tmp_path / "served" / "b.tar", samples)
    loaded = load(f"{server.url}/b.tar", tmp_path / "c")
    assert loaded.skipped == ["s07"] and count(loaded) == 39
    (tmp_path / "served" / "c.tar").write_bytes(b"not a tar at all" * 99)
    with pytest.raises(InputError, match=r"c\.tar: the shard can't be read"):
        load(f"{server.url}/c.tar", tmp_path / "c")


def test_a_bridge_is_measured_on_shards_behind_a_url(
    mmx_in_process, tmp_path: Path, server: Server, debug_options, monkeypatch
) -> None:
    monkeypatch.setenv("MMX_CACHE", str(tmp_path / "c"))
    tables = []
    for name, data in (("url", f"{server.url}/a-000.tar"), ("local", tmp_path / "served" / "a-000.tar")):
        command = ("eval", "sound2img", "--data", data, "--split", "train", "-o", tmp_path / name, "--device", "cpu")
        code, _, err = mmx_in_process(*command, *debug_options[:4])
        assert code == 0, err.decode()
        tables.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert tables[0] == tables[1] and tables[0]["data"]["train"]["pairs"] == 20
