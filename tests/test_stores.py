"""Inputs and results in stores: the bytes are those of files, and what a store does now and then does no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from mmx.cli.ledger import Ledger
from mmx.errors import InputError, NetworkError, UsageError
from mmx.media import stores
from mmx.media.files import Source, Target
from mmx.media.stores import Place, Store, expand, is_store, local, plan
from tests.flaky_store import FlakyFileSystem, empty


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    monkeypatch.setattr(stores, "PAUSE", 0.0)
    yield empty()
    empty()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()


def below(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, bytes]:
    """What is in a store's folder, by name, but for the ledger."""
    names = [name for name in fs.store if name.startswith(f"{folder}/") and "mmx-done" not in name]
    return {name.removeprefix(f"{folder}/"): fs.store[name].getvalue() for name in names}


@pytest.mark.parametrize(
    ("given", "names", "relative"),
    [
        ("memory://in", ["memory://in/a.wav", "memory://in/deep/b.flac"], ["a", "deep/b"]),
        ("memory://in/", ["memory://in/a.wav", "memory://in/deep/b.flac"], ["a", "deep/b"]),
        ("memory://in/a.wav", ["memory://in/a.wav"], ["a"]),
        ("memory://in/*.wav", ["memory://in/a.wav"], ["a"]),
        ("memory://in/**/*.flac", ["memory://in/deep/b.flac"], ["b"]),
    ],
)
def test_what_a_url_names(memory, given: str, names: list[str], relative: list[str]) -> None:
    for name in ("a.wav", "deep/b.flac", "c.txt", ".hidden.wav", "._a.wav"):
        memory.pipe(f"/in/{name}", name.encode())
    found = expand([given], "sound")
    assert [source.name for source in found] == names
    assert [source.relative.as_posix() for source in found] == relative
    assert [source.read().decode() for source in found] == [name.removeprefix("memory://in/") for name in names]


def test_urls_and_paths_go_together(memory, bark: Path, tmp_path: Path) -> None:
    memory.pipe("/in/a.wav", b"a")
    found = expand([str(bark), "memory://in/a.wav", f"file://{bark}"], "sound")
    assert [source.read() for source in found] == [bark.read_bytes(), b"a", bark.read_bytes()]
    assert local("file:///tmp/x.wav") == "/tmp/x.wav" and not is_store("file:///tmp/x") and not is_store("https://a/b")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("memory://nothing/here", UsageError, "no such object"),
        ("memory://in/*.mp3", UsageError, "no such object"),
        ("memory://texts", UsageError, "no sound files"),
        ("memory://in/**.flac", UsageError, "pattern"),
        ("nowhere://bucket/in", UsageError, "nowhere"),
        ("https://host/a.wav", UsageError, "is an address"),
    ],
)
def test_what_is_not_there_is_said_before_any_work(memory, given: str, error: type[Exception], said: str) -> None:
    memory.pipe("/texts/c.txt", b"c")
    with pytest.raises(error, match=said):
        expand([given], "sound")


def test_an_object_that_is_gone_or_too_large_is_an_unreadable_input(memory) -> None:
    memory.pipe("/in/a.wav", b"12345")
    (source,) = expand(["memory://in/a.wav"], "sound")
    with pytest.raises(InputError, match="more than"):
        source.store.read(source.name, limit=4)
    memory.rm("/in/a.wav")
    with pytest.raises(InputError, match=r"memory://in/a.wav: no such object"):
        source.read()


def test_nothing_is_asked_of_the_network_where_that_is_forbidden(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="the network is off"):
        expand(["s3://bucket/in"], "sound")


def test_results_go_below_the_url_as_below_a_folder(tmp_path: Path) -> None:
    sources = [Source(Path("x/a.wav"), Path("x/a")), Source(Path("b.wav"), Path("b"))]
    planned = [target for own in plan(sources, "memory://out/", 2, ".png") for target in own]
    there = [target.below(str(tmp_path)) for own in plan(sources, str(tmp_path), 2, ".png") for target in own]
    assert [target.below("memory://out") for target in planned] == there
    assert [target.name for target in planned] == [f"memory://out/{name}" for name in there]
    ((one,),) = plan(sources[:1], "memory://out/one.png", 1, ".png")
    assert one.name == "memory://out/one.png"
    assert plan(sources[:1], None, 1, ".png") == [[Target(Path("x/a.png"))]]
    with pytest.raises(UsageError, match=r"memory://out/one.png is one file"):
        plan(sources, "memory://out/one.png", 1, ".png")


def test_what_exists_is_not_overwritten_unasked(memory) -> None:
    memory.pipe("/out/a.png", b"old")
    target = Place(None, Store("memory://out"), "a.png")
    with pytest.raises(UsageError, match=r"memory://out/a.png exists"):
        target.check(overwrite=False)
    target.check(overwrite=True)
    Place(None, Store("memory://out"), "b.png").check(overwrite=False)


def test_a_store_that_stumbles_is_asked_again_and_one_that_fails_is_named(flaky) -> None:
    store = Store("flaky://out")
    store.write("flaky://out/a", b"1")
    assert store.read("flaky://out/a") == b"1" and flaky.written == {"a": 1}
    flaky.broken = True
    with pytest.raises(NetworkError, match=r"flaky://out/b: slow down"):
        store.write("flaky://out/b", b"2")


def test_a_folder_of_a_store_is_translated_as_one_on_a_disk(
    flaky, mmx_in_process, one_step_options, bark: Path, sea: Path, tmp_path: Path
) -> None:
    """One bad input does not stop the rest; a second run does what is not done."""
    for name, data in {"bark.wav": bark.read_bytes(), "far/sea.wav": sea.read_bytes(), "junk.wav": b"no" * 99}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
        flaky.store[f"/in/{name}"] = fsspec.implementations.memory.MemoryFile(flaky(), f"/in/{name}", data)
    code, _, err = mmx_in_process("sound2img", tmp_path / "in", "-o", tmp_path / "out", *one_step_options)
    line = ("sound2img", "flaky://in", "-o", "flaky://out", "--resume", "--json", *one_step_options)
    stored, out, _ = mmx_in_process(*line)
    assert code == stored == 6 and b"junk.wav" in err
    made = (tmp_path / "out").rglob("*.png")
    there = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in made}
    assert below(flaky(), "/out") == there and len(there) == 2
    said = [json.loads(row) for row in out.splitlines()]
    assert [row["inputs"] for row in said[:2]] == [["flaky://in/bark.wav"], ["flaky://in/far/sea.wav"]]
    assert said[0]["outputs"] == ["flaky://out/bark.png"]

    flaky().rm("/out/bark.png")
    flaky.written.clear()
    assert mmx_in_process(*line)[0] == 6
    assert below(flaky(), "/out") == there
    assert {name for name in flaky.written if not name.startswith("mmx-done")} == {"bark.png"}


def test_a_ledger_in_a_store_knows_what_several_runs_did(memory) -> None:
    targets = [Place(None, Store("memory://out"), "a.png")]
    for key in ("one", "two"):
        ledger = Ledger("memory://out/")
        ledger.add(key, targets)
        ledger.close()
    memory.pipe("/out/a.png", b"")
    memory.pipe("/out/mmx-done-0-cut.jsonl", b'{"job": "three", "outp')
    again = Ledger("memory://out")
    fresh = [Place(None, Store("memory://out"), "a.png")]
    assert again.has("one", fresh) and again.has("two", fresh) and not again.has("three", fresh)
    assert not again.has("one", [Place(None, Store("memory://out"), "b.png")])
