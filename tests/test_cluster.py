"""`--engine ray`: the bytes of one machine; workers that die, inputs and stores that are bad, and a second run."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from safetensors.numpy import load

from mmx.cluster import pool
from mmx.cluster.worker import Worker, portable
from mmx.errors import InputError, UsageError
from mmx.launch import VARIABLES
from mmx.media import stores
from mmx.media.given import Given, Job
from mmx.options import Settings
from mmx.serving.wire import ANYWHERE, Asked
from mmx.spaces import embedding, indexing
from tests.conftest import ROOT
from tests.flaky_store import FlakyFileSystem, empty
from tests.mortal_worker import MortalWorker
from tests.small_language import small_lm

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two machines on this one, each with room for one worker, which finds these tests."""
    import torch
    from ray.cluster_utils import Cluster

    small = {"num_cpus": torch.get_num_threads(), "object_store_memory": 80_000_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
        cluster.add_node(**small)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    monkeypatch.setattr(stores, "PAUSE", 0.0)
    yield empty()
    empty()


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Workers die of some inputs; the folder where they note it."""
    monkeypatch.setattr(pool, "Worker", MortalWorker)
    folder = Path(os.environ["MMX_CACHE"])
    yield folder
    for name in ("died", "unable"):
        (folder / name).unlink(missing_ok=True)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def make(folder: Path, bark: Path, sea: Path, *bad: str) -> Path:
    """Six sounds, one of them in a folder, and bad ones."""
    (folder / "far").mkdir(parents=True)
    for number in range(6):
        path = folder / ("far" if number == 5 else "") / f"{number}.wav"
        path.write_bytes((bark if number % 2 else sea).read_bytes())
    for name in bad:
        (folder / name).write_bytes(b"no" * 99 if name.startswith("junk") else sea.read_bytes())
    return folder


def test_two_workers_make_what_one_machine_makes_and_a_poisoned_input_ends_nothing(
    address, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path
) -> None:
    sounds = make(tmp_path / "in", bark, sea, "junk.wav")
    here = mmx_in_process("sound2img", sounds, "-o", tmp_path / "here", "-n", "2", *one_step_options)
    line = ("sound2img", sounds, "-o", tmp_path / "ray", "-n", "2", *one_step_options)
    code, out, err = mmx_in_process(*line, "--engine", "ray", "--address", address, "--json", "--resume")
    assert here[0] == code == 6
    assert files(tmp_path / "ray") == files(tmp_path / "here") and len(files(tmp_path / "ray")) == 12
    said = [json.loads(row) for row in out.splitlines()]
    assert sorted(row["inputs"][0] for row in said[:-1]) == sorted(str(path) for path in sounds.rglob("*.wav"))
    assert sum(row.get("error") == "InputError" for row in said) == 1 and said[-1]["exit_code"] == 6
    assert b"2 workers of Ray" in err and b"Traceback" not in err

    (tmp_path / "ray" / "3-1.png").unlink()
    (sounds / "junk.wav").unlink()
    code, _, err = mmx_in_process(*line, "--engine", "ray", "--address", address, "--resume")
    assert code == 0 and err.count(b"already done") == 5
    assert files(tmp_path / "ray") == files(tmp_path / "here")


def test_a_worker_that_is_killed_half_way_is_replaced(
    address, mortal, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path
) -> None:
    sounds = make(tmp_path / "in", bark, sea, "once.wav")
    assert mmx_in_process("sound2img", sounds, "-o", tmp_path / "here", *one_step_options)[0] == 0
    line = ("sound2img", sounds, "-o", tmp_path / "ray", "--json", *one_step_options)
    code, out, err = mmx_in_process(*line, "--engine", "ray", "--address", address)
    assert code == 0 and (mortal / "died").exists() and b"a worker was lost" in err
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert len([json.loads(row) for row in out.splitlines()]) == 7  # each once, and nothing of Ray's


def test_an_input_that_every_worker_dies_of_ends_nothing(
    address, mortal, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path
) -> None:
    sounds = make(tmp_path / "in", bark, sea, "deadly.wav")
    line = ("sound2img", sounds, "-o", tmp_path / "ray", "-q", *one_step_options)
    code, _, err = mmx_in_process(*line, "--engine", "ray", "--address", address)
    assert code == 6 and b"deadly.wav: 3 workers died of it" in err
    assert len(files(tmp_path / "ray")) == 6


def test_a_store_that_fails_now_and_then_gets_everything_once(
    address, flaky, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path
) -> None:
    sounds = make(tmp_path / "in", bark, sea)
    for path in sounds.rglob("*.wav"):
        while not flaky().exists(f"/in/{path.relative_to(sounds)}"):
            try:
                flaky().pipe_file(f"/in/{path.relative_to(sounds)}", path.read_bytes())
            except OSError:
                continue
    flaky.written.clear()
    assert mmx_in_process("sound2img", sounds, "-o", tmp_path / "here", *one_step_options)[0] == 0
    line = ("sound2img", "flaky://in", "-o", "flaky://out", "--resume", *one_step_options)
    assert mmx_in_process(*line, "--engine", "ray", "--address", address)[0] == 0
    there = {k.removeprefix("/out/"): v.getvalue() for k, v in flaky.store.items() if k.startswith("/out/")}
    assert {name: data for name, data in there.items() if name.endswith(".png")} == files(tmp_path / "here")
    assert set(flaky.written.values()) == {1}


def test_a_bucket_is_read_and_written_and_a_second_run_does_nothing_twice(
    address, s3, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path
) -> None:
    sounds = make(tmp_path / "in", bark, sea)
    for path in sounds.rglob("*.wav"):
        s3.put_file(str(path), f"bucket/in/{path.relative_to(sounds)}")
    assert mmx_in_process("sound2img", sounds, "-o", tmp_path / "here", *one_step_options)[0] == 0
    line = ("sound2img", "s3://bucket/in", "-o", "s3://bucket/out", "--resume", *one_step_options)
    seen = []
    for already in (0, 6):
        code, _, err = mmx_in_process(*line, "--engine", "ray", "--workers", "2", "--address", address)
        assert code == 0 and err.count(b"already done") == already and b"2 workers of Ray" in err
        seen.append({k: s3.info(k)["LastModified"] for k in s3.find("bucket/out", refresh=True) if k.endswith(".png")})
    there = {name.removeprefix("bucket/out/"): s3.cat(name) for name in seen[0]}
    assert seen[0] == seen[1] and there == files(tmp_path / "here") and len(there) == 6


def test_models_that_no_worker_can_load_end_the_batch_at_once(
    address, mortal, mmx_in_process, one_step_options, bark: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(pool, "LOADS", 1)
    spread = ("--engine", "ray", "--address", address, "-o", tmp_path / "out")
    (tmp_path / "damaged").mkdir()
    code, _, err = mmx_in_process("sound2img", bark, *spread, "--decoder", tmp_path / "damaged")
    assert code == 4 and err.splitlines()[-2].startswith(b"mmx: ") and b"Traceback" not in err
    (mortal / "unable").touch()
    code, _, err = mmx_in_process("sound2img", bark, *spread, *one_step_options)
    assert code == 4 and b"workers die while they load the models" in err


def test_edits_go_to_a_cluster_too(address, mmx_in_process, debug_models, tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(tmp_path / "in" / f"{name}.png")
    line = ("edit", tmp_path / "in", "a cat", "--decoder", debug_models[1], "--steps", "2")
    for where, spread in (("here", ()), ("ray", ("--engine", "ray", "--address", address))):
        assert mmx_in_process(*line, "-o", tmp_path / where, *spread)[0] == 0
    assert files(tmp_path / "ray") == files(tmp_path / "here") and len(files(tmp_path / "ray")) == 2


@pytest.fixture
def media(tmp_path: Path, bark: Path) -> Path:
    """Pictures, a sound, a text, a video, and what can't be read."""
    from tests.test_video import video

    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(5):
        Image.radial_gradient("L").resize((40 + number, 30)).convert("RGB").save(folder / f"{number}.png")
    shutil.copy(bark, folder / "once.wav")
    (folder / "words.txt").write_text("a dog\na cat\n")
    (folder / "junk.png").write_bytes(b"\x89PNG no")
    video(folder / "clip.mkv", seconds=2.0)
    return folder


def test_an_index_by_workers_of_which_one_dies(
    address, mortal, mmx_in_process, one_step_models, media: Path, tmp_path: Path, monkeypatch
) -> None:
    """The same shards, whichever worker embeds what, and the same said."""
    monkeypatch.setattr(indexing, "SETTLED", 0)
    monkeypatch.setattr(embedding, "BATCH", 4)
    line = ("index", media, "--every", "1", "--space", one_step_models[1], "--bridge", one_step_models[0])
    here = mmx_in_process(*line, "-o", tmp_path / "here.idx")
    code, _, err = mmx_in_process(*line, "-o", tmp_path / "ray.idx", "--engine", "ray", "--address", address)
    assert here[0] == code == 6 and (mortal / "died").exists() and b"a worker was lost" in err
    assert here[2].splitlines()[-2] == err.splitlines()[-2].replace(b"ray.idx", b"here.idx")  # 8 embedded, ...
    made = [
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
        for folder in (tmp_path / "here.idx", tmp_path / "ray.idx")
    ]
    assert made[0] == made[1] and len(made[0]) > 3


def test_vectors_and_captions_from_a_cluster_and_a_store_that_fails(
    address, flaky, mmx_in_process, one_step_models, media: Path, tmp_path: Path
) -> None:
    space = ("--space", one_step_models[1], "--bridge", one_step_models[0])
    spread, out = ("--engine", "ray", "--address", address), tmp_path / "v.safetensors"
    here = mmx_in_process("embed", media, "--text", "a dog", "-o", out, *space)
    for path in media.iterdir():
        while not flaky().exists(f"/in/{path.name}"):
            try:
                flaky().pipe_file(f"/in/{path.name}", path.read_bytes())
            except OSError:
                continue
    flaky.written.clear()
    line = ("embed", "flaky://in", "--text", "a dog", "-o", "flaky://out/v.safetensors", *space, *spread)
    code, _, err = mmx_in_process(*line)
    assert here[0] == code == 6 and b"flaky://in/junk.png" in err
    made = load(flaky.store["/out/v.safetensors"].getvalue())["vectors"]
    assert made.tobytes() == load(out.read_bytes())["vectors"].tobytes() and set(flaky.written.values()) == {1}
    own = (*space, "--lm", small_lm(tmp_path / "lm"), "--steps", "1", "--candidates", "20", "-o")
    for name, where in (("here", ()), ("ray", spread)):
        pictures = (media / "0.png", media / "once.wav", media / "4.png")
        assert mmx_in_process("caption", *pictures, *own, tmp_path / f"{name}.jsonl", *where)[0] == 0
    assert (tmp_path / "here.jsonl").read_bytes() == (tmp_path / "ray.jsonl").read_bytes()
    assert mmx_in_process("caption", media / "0.png", "--batch", "2", *spread)[0] == 2


def test_a_line_that_makes_no_sense_costs_no_cluster(mmx_in_process, bark: Path, tmp_path: Path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for options, code, said in (
        (("--engine", "slurm"), 2, b"no such engine"),
        (("--workers", "2"), 2, b"--workers is for --engine ray"),
        (("--engine", "ray", "--server", "/tmp/s.sock"), 2, b"--server none"),
        (("--engine", "ray", "--address", f"127.0.0.1:{port}"), 5, b"no Ray cluster answers"),
        (("--engine", "ray", "--address", "nonsense"), 2, b"HOST:PORT"),
    ):
        got, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "x.png", *options)
        assert got == code and said in err, err
    for name, value in zip(VARIABLES, ("0", "0", "2", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    got, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "x.png", "--engine", "ray")
    assert got == 2 and b"without torchrun" in err


def test_a_ray_that_does_not_start_is_no_bug(mmx_in_process, bark: Path, tmp_path: Path, monkeypatch) -> None:
    import ray

    def busy(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray says it

    monkeypatch.setattr(ray, "init", busy)
    got, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "x.png", "--engine", "ray")
    assert got == 5 and b"Ray does not start: The current node timed out" in err


def test_workers_are_as_many_as_there_is_room_for(monkeypatch) -> None:
    """On each machine: what is left on two makes no worker together."""
    machines = [{"CPU": 7.0, "GPU": 2.0}, {"CPU": 3.0}, {"CPU": 64.0}]
    found, notes = pool.Pool.__new__(pool.Pool), []
    found.note = notes.append
    nodes = [{"Alive": number < 2, "Resources": machine} for number, machine in enumerate(machines)]
    found.ray = SimpleNamespace(nodes=lambda: nodes)

    def room(threads: int = 4, device: str = "auto", **wanted: float) -> tuple[dict[str, float], int]:
        found.asked = Asked("sound2img", {}, ANYWHERE | {"device": device}, threads)
        return found._room(pool.Wanted(**wanted))

    assert room() == ({"num_cpus": 1.0, "num_gpus": 1.0}, 2)
    assert room(gpus=0.5) == ({"num_cpus": 1.0, "num_gpus": 0.5}, 4)
    assert room(device="cpu") == ({"num_cpus": 4.0, "num_gpus": 0.0}, 1)
    assert room(gpus=0.0, threads=3) == ({"num_cpus": 3.0, "num_gpus": 0.0}, 3)
    assert room(workers=1)[1] == 1 and not notes
    assert room(workers=9)[1] == 9 and "room for 2 workers of 1 CPUs and 1 GPUs each" in notes[0]
    with pytest.raises(UsageError, match="no machine of the cluster has 8 CPUs"):
        room(device="cpu", threads=8)


def test_a_worker_with_other_models_or_another_version_is_left_out() -> None:
    found = pool.Pool.__new__(pool.Pool)
    found.lock, found.opened = pool.threading.Lock(), None
    about = {"version": pool.mmx.__version__, "host": "a", "models": {"bridge": {"sha256": "1"}}}
    assert found._other(about) is None and found._other(dict(about)) is None
    assert "other models" in found._other(about | {"models": {}}).message
    assert "is mmx 0" in found._other(about | {"version": "0"}).message


class Unportable(Exception):
    def __reduce__(self):
        raise TypeError("it can't be pickled")


def test_errors_travel(bark: Path) -> None:
    error = portable(InputError("a", "b"))
    assert (error.message, error.hint) == ("a", "b")
    assert isinstance(portable(UsageError("a")), UsageError)
    assert str(portable(Unportable("why"))) == "Unportable: why"
    job = Job((Given("a.wav", bark.read_bytes()),), Settings())
    assert Worker(None, False).run(job).__class__ is AttributeError  # it was never opened; nothing is raised
