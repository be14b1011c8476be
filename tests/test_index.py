"""Indexes of media, and what is found in them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.errors import InputError, ModelError, OutputError, UsageError
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import read_image
from mmx.spaces import embedding, indexing
from mmx.spaces.base import MODALITIES
from mmx.spaces.index import Index, writing
from mmx.spaces.indexing import Indexed, update
from mmx.spaces.near import looked_at, refreshed
from mmx.spaces.parts import Cuts, Part
from mmx.spaces.query import parse_query
from mmx.spaces.search import Searcher, find, means_of
from mmx.spaces.shards import Shard, write_shard
from tests.conftest import ROOT, tone
from tests.small_space import DIM, small_space
from tests.test_video import video

COLOURS = ("red", "green", "blue", "yellow", "black", "white")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six pictures, two sounds and a text of two lines."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in COLOURS:
        Image.new("RGB", (24, 16), name).save(folder / f"{name}.png")
    for name, hertz in (("low", 200.0), ("high", 6000.0)):
        (folder / f"{name}.wav").write_bytes(wav_bytes(Waveform(tone(0.3, hertz), 16_000)))
    (folder / "words.txt").write_text("something red\nsomething blue\n")
    return folder


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The paths that are embedded, as they come."""
    seen: list[str] = []
    parts_of = embedding.parts_of

    def counting(space, source, name, cuts):
        seen.append(Path(name).name)
        return parts_of(space, source, name, cuts)

    monkeypatch.setattr(embedding, "parts_of", counting)
    return seen


def index_of(folder: Path, data: Path, **options) -> Indexed:
    return update(folder, small_space(), [path for path in data.rglob("*") if path.is_file()], **options)


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    """Rows as path, line or time → vector."""
    return {
        f"{Path(row['path']).name}{row.get('line', '')}{row.get('start', '')}{row['modality'][0]}": vector
        for shard in Index.open(folder).shards
        for row, vector in zip(shard.rows(), shard.vectors, strict=True)
    }


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_an_index_holds_each_file_by_what_is_in_it(tmp_path: Path, data: Path) -> None:
    done = index_of(tmp_path / "a.idx", data)
    assert (done.rows, done.embedded, done.unreadable) == (10, 9, [])
    index, space = Index.open(tmp_path / "a.idx"), small_space()
    assert index.counts == {"image": 6, "sound": 2, "text": 2, "array": 0} and index.fingerprint == space.fingerprint
    rows = rows_of(tmp_path / "a.idx")
    vector = space.encode([read_image(data / "red.png")], "image")[0].half().numpy()
    np.testing.assert_array_equal(rows["red.pngi"], vector)
    assert {"words.txt1t", "words.txt2t"} < rows.keys()
    everything = np.stack(list(rows.values())).astype(float)
    np.testing.assert_allclose(index.sums.sum(0), everything.sum(0), atol=1e-6)
    assert isinstance(index.shards[0].vectors, np.memmap) and index.shards[0].vectors.dtype == np.float16


def test_a_second_run_embeds_only_what_is_new_or_changed(tmp_path: Path, data: Path, counted) -> None:
    index_of(tmp_path / "a.idx", data)
    counted.clear()
    done = index_of(tmp_path / "a.idx", data)
    assert counted == [] and (done.kept, done.embedded, done.dropped) == (9, 0, 0)
    Image.new("RGB", (24, 16), "pink").save(data / "red.png")
    Image.new("RGB", (24, 16), "brown").save(data / "brown.png")
    (data / "words.txt").write_text("something red\n")
    done = index_of(tmp_path / "a.idx", data)
    assert sorted(counted) == ["brown.png", "red.png", "words.txt"]
    assert (done.kept, done.embedded, done.rows) == (7, 3, 10)
    index_of(tmp_path / "b.idx", data)
    assert same(rows_of(tmp_path / "a.idx"), rows_of(tmp_path / "b.idx"))


def test_what_was_deleted_is_dropped_and_what_was_renamed_is_not_embedded_again(
    tmp_path: Path, data: Path, counted
) -> None:
    index_of(tmp_path / "a.idx", data)
    counted.clear()
    (data / "red.png").unlink()
    (data / "blue.png").rename(data / "sky.png")
    shutil.copy(data / "green.png", data / "grün – 緑.png")
    done = index_of(tmp_path / "a.idx", data)
    assert counted == [] and (done.moved, done.dropped, done.kept) == (2, 1, 7)
    index_of(tmp_path / "b.idx", data)
    assert same(rows_of(tmp_path / "a.idx"), rows_of(tmp_path / "b.idx"))
    assert "grün – 緑.pngi" in rows_of(tmp_path / "a.idx")
    np.testing.assert_allclose(Index.open(tmp_path / "a.idx").sums, Index.open(tmp_path / "b.idx").sums)


def test_a_file_of_old_times_is_looked_at_once(tmp_path: Path, data: Path, monkeypatch) -> None:
    """An unchanged folder is not read again once its files' times have settled."""
    monkeypatch.setattr(indexing, "SETTLED", 0)
    index_of(tmp_path / "a.idx", data)
    monkeypatch.setattr(indexing, "_looked_at", lambda *_: pytest.fail("it was read again"))
    assert index_of(tmp_path / "a.idx", data).kept == 9


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path, data: Path, monkeypatch) -> None:
    monkeypatch.setattr(indexing, "SETTLED", 0)
    path = data / "words.txt"
    index_of(tmp_path / "a.idx", data)
    before = path.stat()
    path.write_text(path.read_text().replace("blue", "pink"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index_of(tmp_path / "a.idx", data).embedded == 1


def test_other_folders_stay_in_an_index(tmp_path: Path, data: Path) -> None:
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8), "orange").save(tmp_path / "more" / "orange.png")
    index_of(tmp_path / "a.idx", data)
    assert index_of(tmp_path / "a.idx", tmp_path / "more").rows == 11
    shutil.rmtree(data)
    done = index_of(tmp_path / "a.idx", tmp_path / "more")
    assert (done.rows, done.dropped) == (1, 9)


def test_a_video_is_indexed_by_its_moments(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    video(tmp_path / "data" / "a.mkv")
    done = index_of(tmp_path / "a.idx", tmp_path / "data", cuts=Cuts(every=4.0))
    rows = [row for shard in Index.open(tmp_path / "a.idx").shards for row in shard.rows()]
    assert done.embedded == 1 and [(row["modality"], round(row["start"])) for row in rows[:4]] == [
        *(("image", 2), ("sound", 2)),
        *(("image", 6), ("sound", 6)),
    ]
    assert index_of(tmp_path / "a.idx", tmp_path / "data", cuts=Cuts(every=4.0)).kept == 1
    done = index_of(tmp_path / "a.idx", tmp_path / "data", cuts=Cuts(every=8.0))  # cut otherwise: it is embedded again
    assert (done.embedded, done.rows) == (1, 4)


def test_shards_are_filled_and_small_ones_become_one(tmp_path: Path, data: Path, monkeypatch) -> None:
    monkeypatch.setattr(indexing, "SHARD", 4)
    monkeypatch.setattr(embedding, "BATCH", 2)
    index_of(tmp_path / "a.idx", data)
    sizes = [len(shard) for shard in Index.open(tmp_path / "a.idx").shards]
    assert sum(sizes) == 10 and max(sizes) <= 4 and sum(size < 2 for size in sizes) <= 1
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(data / f"{number}.png")
        index_of(tmp_path / "a.idx", data)
    sizes = [len(shard) for shard in Index.open(tmp_path / "a.idx").shards]
    assert sum(sizes) == 13 and sum(size < 2 for size in sizes) <= 1


def test_killed_at_any_step_an_index_is_whole_and_goes_on(python, tmp_path: Path, data: Path) -> None:
    done = subprocess.run(
        [*python, "-m", "tests.killed_index", data, tmp_path / "a.idx"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert len(found) >= 12 and all(kill["whole"] for kill in found)
    assert all(kill["left"] == ["index.json", "lock"] for kill in found)  # nothing half-written stays
    assert {kill["there"] for kill in found} == {0, 4}  # shards that were finished were not lost


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, data: Path, monkeypatch) -> None:
    monkeypatch.setattr(embedding, "BATCH", 2)

    def interrupting(done: int, of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_of(tmp_path / "a.idx", data, say=interrupting)
    assert len(Index.open(tmp_path / "a.idx")) == 4
    assert index_of(tmp_path / "a.idx", data).embedded == 5


def test_two_writers_do_not_meet(tmp_path: Path, data: Path) -> None:
    with writing(tmp_path / "a.idx", small_space()), pytest.raises(OutputError, match="another process is writing"):
        index_of(tmp_path / "a.idx", data)
    assert index_of(tmp_path / "a.idx", data).rows == 10


def test_what_cannot_be_read_is_named_and_skipped(tmp_path: Path, data: Path) -> None:
    (data / "broken.png").write_bytes(b"\x89PNG")
    (data / "silent.wav").write_bytes(wav_bytes(Waveform(np.zeros(8000, np.float32), 16_000)))
    done = index_of(tmp_path / "a.idx", data)
    assert done.rows == 10 and {Path(path).name for path, _ in done.unreadable} == {"broken.png", "silent.wav"}
    (data / "red.png").write_bytes(b"\x89PNG")  # what it was is not there any more
    assert index_of(tmp_path / "a.idx", data).rows == 9 and "red.pngi" not in rows_of(tmp_path / "a.idx")


def test_a_reader_that_breaks_breaks_no_other_file(tmp_path: Path, data: Path, monkeypatch) -> None:
    def breaking(space, source, name, cuts):
        yield Part("image", Image.new("RGB", (4, 4), "red"))
        if name.endswith("green.png"):
            raise ValueError("odd")

    monkeypatch.setattr(embedding, "parts_of", breaking)
    done = index_of(tmp_path / "a.idx", data)
    assert [(Path(path).name, error.exit_code) for path, error in done.unreadable] == [("green.png", 3)]
    assert done.rows == 8


def test_another_space_is_refused_by_name(tmp_path: Path, data: Path) -> None:
    index_of(tmp_path / "a.idx", data)
    with pytest.raises(ModelError, match=r"space small .*not of other"):
        update(tmp_path / "a.idx", small_space("other"), [data / "red.png"])
    with pytest.raises(ModelError, match=r"space small .*not of other"):
        Searcher(Index.open(tmp_path / "a.idx"), small_space("other"))
    assert len(Index.open(tmp_path / "a.idx")) == 10


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, data: Path) -> None:
    before = sorted(data.iterdir())
    with pytest.raises(UsageError, match="something else"):
        update(data, small_space(), [data / "red.png"])
    assert sorted(data.iterdir()) == before
    with pytest.raises(UsageError, match="no such index"):
        Index.open(data)


@pytest.mark.parametrize("name", ["index.json", "000000/vectors.npy", "000000/codes.npy", "000000/offsets.npy"])
def test_a_damaged_index_is_an_error_not_a_wrong_answer(tmp_path: Path, data: Path, name: str) -> None:
    index_of(tmp_path / "a.idx", data)
    path = tmp_path / "a.idx" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError):
        Index.open(tmp_path / "a.idx")
    path.unlink()
    with pytest.raises((ModelError, UsageError)):
        Index.open(tmp_path / "a.idx")


def random_index(folder: Path, counts: dict[str, int]) -> tuple[Index, torch.Tensor, list[str]]:
    """Vectors of modalities that lie apart, in shards of 50."""
    generator, names = torch.Generator().manual_seed(0), []
    gaps = {modality: 3 * torch.randn(DIM, generator=generator) for modality in MODALITIES}
    for modality, count in counts.items():
        names += [modality] * count
    rows = torch.stack([gaps[name] + torch.randn(DIM, generator=generator) for name in names])
    vectors = F.normalize(rows, dim=-1).half()
    space = small_space()
    index = Index(folder, space.name, space.fingerprint, DIM)
    folder.mkdir()
    about = [{"path": f"/{number}", "modality": name} for number, name in enumerate(names)]
    return index.changed((), about, vectors.numpy(), 50), vectors.float(), names


def test_exact_search_is_what_a_plain_loop_finds(tmp_path: Path) -> None:
    index, vectors, names = random_index(tmp_path / "a.idx", {"image": 120, "sound": 60, "text": 30})
    searcher = Searcher(index, small_space())
    query = F.normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(1)), dim=0)
    means = searcher.means[[MODALITIES.index(name) for name in names]]
    expected, codes = F.normalize(vectors - means, dim=-1) @ query, [MODALITIES.index(name) for name in names]
    usual = torch.stack([expected[[c == code for c in codes]].square().mean().sqrt() for code in range(3)])
    np.testing.assert_allclose(searcher.usual(query)[:3], usual, rtol=0.1)  # of 30 rows it is drawn to that of all
    standing = expected / searcher.usual(query)[codes]
    hits = searcher.top(query, 210)
    found = [int(hit.row["path"][1:]) for hit in hits]
    assert sorted(found) == list(range(210)) and set(found[:3]) == set(standing.topk(3).indices.tolist())
    assert [hit.standing for hit in hits] == sorted((hit.standing for hit in hits), reverse=True)
    # a vector in float16 has a norm of 1 to some 1e-3
    np.testing.assert_allclose([hit.score for hit in hits], expected[found], atol=4e-3)
    np.testing.assert_allclose([hit.standing for hit in hits], standing[found], atol=2e-2)
    sounds = searcher.top(query, 5, "sound")
    assert len(sounds) == 5 and all(hit.row["modality"] == "sound" for hit in sounds)
    assert len(searcher.top(query, 1000, "text")) == 30
    plain = Searcher(index, small_space(), corrected=False).top(query, 1)[0]
    assert plain.score == pytest.approx(float((vectors @ query).max()), abs=1e-3)


def test_centring_finds_other_modalities_than_the_querys_own(tmp_path: Path, data: Path) -> None:
    """Without it a text finds texts, however little they have to do with it."""
    index_of(tmp_path / "a.idx", data)
    index = Index.open(tmp_path / "a.idx")

    def found(corrected: bool) -> list[str]:
        searcher = Searcher(index, small_space(), corrected=corrected)
        return [Path(hit.row["path"]).name for hit in searcher.top(searcher.query(parse_query("green"), bytes), 2)]

    assert found(False) == ["words.txt", "words.txt"] and "green.png" in found(True)


def test_a_modality_that_all_is_near_to_does_not_come_first(tmp_path: Path) -> None:
    """Scores of one modality spread three times as far as those of the other: what is right is found among both."""
    generator = torch.Generator().manual_seed(0)
    right = F.normalize(torch.randn(DIM, generator=generator), dim=0)
    rows, about = [], []
    for number in range(200):
        modality, width = (("image", 1.0), ("sound", 0.3))[number % 2]
        noise = F.normalize(torch.randn(DIM, generator=generator), dim=0)
        along = (1.0 if number < 20 else torch.rand(1, generator=generator).item() - 0.5) * width
        rows.append(along * right + (1 - along**2) ** 0.5 * F.normalize(noise - (noise @ right) * right, dim=0))
        about.append({"path": f"/{number}", "modality": modality})
    space = small_space()
    (tmp_path / "a.idx").mkdir()
    index = Index(tmp_path / "a.idx", space.name, space.fingerprint, DIM)
    index = index.changed((), about, torch.stack(rows).half().numpy(), 50)
    found = {
        corrected: {hit.row["modality"] for hit in Searcher(index, space, corrected=corrected).top(right, 20)}
        for corrected in (False, True)
    }
    assert found == {False: {"image"}, True: {"image", "sound"}}


def test_a_sum_is_searched_for_by_its_parts(tmp_path: Path, data: Path, monkeypatch) -> None:
    monkeypatch.chdir(data)
    index_of(tmp_path / "a.idx", data)
    index, space = Index.open(tmp_path / "a.idx"), small_space()
    searcher = Searcher(index, space)

    def direction(query: str) -> torch.Tensor:
        return searcher.query(parse_query(query), bytes)

    whole = direction("red.png + 0.5*'blue' - low.wav")
    parts = direction("red.png") + 0.5 * direction("'blue'") - direction("low.wav")
    assert torch.allclose(whole, F.normalize(parts, dim=-1), atol=1e-5)
    hits = searcher.top(direction("red.png + blue.png"), 3, "image")
    assert {Path(hit.row["path"]).stem for hit in hits} >= {"red", "blue"}
    with pytest.raises(UsageError, match="cancel"):
        direction("red.png - red.png")
    with pytest.raises(InputError):
        searcher.query(parse_query("-"), lambda: b"\x00\x01 nothing")


def test_an_index_that_changes_while_it_is_read_is_read_again(tmp_path: Path, data: Path, monkeypatch) -> None:
    index_of(tmp_path / "a.idx", data)
    row, again = Shard.row, []

    def losing(shard: Shard, number: int):
        if not again:
            again.append(1)
            Image.new("RGB", (8, 8), "pink").save(data / "red.png")
            index_of(tmp_path / "a.idx", data)  # another process deletes the shard that is being read
        return row(shard, number)

    monkeypatch.setattr(Shard, "row", losing)
    hits = find(lambda: Index.open(tmp_path / "a.idx"), small_space(), parse_query("'red'"), top=10)
    assert len(hits) == 10 and again


@pytest.fixture
def graphs(monkeypatch) -> None:
    """Indexes are large from 100 rows on."""
    pytest.importorskip("usearch")
    monkeypatch.setattr("mmx.spaces.near.LARGE", 100)


def recall(index: Index, count: int = 10) -> float:
    """Of what exact search finds, the share that the graph finds, too."""
    exact, graph = Searcher(index, small_space(), exact=True), Searcher(index, small_space())
    assert graph.graph is not None
    generator, found = torch.Generator().manual_seed(2), []
    for _ in range(20):
        query = F.normalize(torch.randn(DIM, generator=generator), dim=0)
        best, near = ({hit.row["path"] for hit in s.top(query, count)} for s in (exact, graph))
        found.append(len(best & near) / count)
    return sum(found) / len(found)


def test_the_graph_of_a_large_index_finds_what_exact_search_finds(tmp_path: Path, graphs) -> None:
    index, *_ = random_index(tmp_path / "a.idx", {"image": 1200, "sound": 700, "text": 100})
    refreshed(index, means_of(index, small_space()))
    index = Index.open(tmp_path / "a.idx")
    assert recall(index) >= 0.95
    searcher = Searcher(index, small_space())
    hits = searcher.top(searcher.query(parse_query("red"), bytes), 30, "sound")
    assert len(hits) == 30 and all(hit.row["modality"] == "sound" for hit in hits)


def test_a_graph_goes_on_with_its_index(tmp_path: Path, graphs) -> None:
    """Rows that came since are found without it, rows that went are not found by it, and the next update mends it."""
    index, vectors, names = random_index(tmp_path / "a.idx", {"image": 400})
    means = means_of(index, small_space())
    index = refreshed(index, means)
    rows = [{"path": f"/new{number}", "modality": "image"} for number in range(60)]
    changed = index.changed(index.shards[:3], rows, vectors[:60].half().numpy(), 50)
    assert (
        recall(changed) >= 0.95
        and {shard.name for shard in index.shards[:3]} < Searcher(changed, small_space()).graph.covers.keys()
    )
    mended = refreshed(changed, means)
    assert Searcher(mended, small_space()).graph.covers == {shard.name: len(shard) for shard in mended.shards}
    assert recall(mended) >= 0.95 and names
    assert len([path for path in (tmp_path / "a.idx").iterdir() if path.name.startswith("near-")]) == 1
    assert refreshed(mended, means) is mended


def test_more_of_a_larger_graph_is_looked_at() -> None:
    """As the square root of its rows; never less than twice what is wanted."""
    assert looked_at(100, 10) == looked_at(150_000, 10) == 512 and looked_at(600_000, 10) == 1024
    assert looked_at(100, 400) == 800


def test_a_graph_that_is_stopped_goes_on(tmp_path: Path, graphs, monkeypatch) -> None:
    """What was kept of it is searched beside the other rows; what comes next is as if nothing had happened."""
    index, *_ = random_index(tmp_path / "a.idx", {"image": 400, "text": 100})
    means, added, clock = means_of(index, small_space()), [], iter(range(10**6))
    monkeypatch.setattr("mmx.spaces.near.KEPT", 3)
    monkeypatch.setattr("mmx.spaces.near.RARELY", 0)
    monkeypatch.setattr("mmx.spaces.near.time", SimpleNamespace(monotonic=lambda: next(clock)))

    def stopping(done: int, of: int) -> None:
        added.append((done, of))
        if len(added) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refreshed(index, means, stopping)
    index = Index.open(tmp_path / "a.idx")
    kept = Searcher(index, small_space()).graph.covers
    assert 0 < sum(kept.values()) < added[-1][0] < len(index) == added[-1][1] and recall(index) >= 0.95
    whole = refreshed(index, means, lambda *told: added.append(told))
    assert added[7][0] > sum(kept.values()) and added[-1] == (500, 500)
    assert Searcher(whole, small_space()).graph.covers.keys() == {shard.name for shard in whole.shards}
    assert recall(whole) >= 0.95
    names = {path.name for path in (tmp_path / "a.idx").iterdir()} - {shard.name for shard in whole.shards}
    assert names - {"lock"} == {"index.json", whole.graph}


def test_the_index_command_makes_the_graph(in_small, monkeypatch, data: Path, graphs) -> None:
    monkeypatch.setattr("mmx.spaces.near.LARGE", 5)
    assert in_small("index", "data", "-o", "a.idx")[0] == 0 and Index.open(Path("a.idx")).graph
    lines = [in_small("search", "a.idx", "red", "--json", *rest)[1] for rest in ((), ("--exact",))]
    assert lines[0] == lines[1]
    monkeypatch.setattr("mmx.spaces.near.usable", lambda: False)  # it is searched without usearch, too
    assert in_small("search", "a.idx", "red", "--json")[1] == lines[0]
    assert b"mmx[search]" in in_small("index", "data", "-o", "a.idx")[2]


def test_an_empty_shard_and_an_empty_index_are_fine(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "000000", [], np.zeros((0, DIM), np.float16))
    assert len(shard) == 0 and shard.rows() == []
    assert update(tmp_path / "a.idx", small_space(), []).rows == 0
    searcher = Searcher(Index.open(tmp_path / "a.idx"), small_space())
    assert searcher.top(searcher.query(parse_query("red"), bytes), 3) == []


# the commands


@pytest.fixture
def in_small(mmx_in_process, monkeypatch, tmp_path: Path) -> Callable[..., tuple[int, bytes, bytes]]:
    """The command, in a space without models, in the tests' folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space())
    return mmx_in_process


def test_index_and_search_as_commands(in_small, tmp_path: Path, data: Path) -> None:
    code, out, err = in_small("index", "data", "-o", "a.idx")
    assert code == 0 and out == b"" and b"10 rows" in err and b"9 embedded" in err
    code, out, err = in_small("index", "data", "-o", "a.idx", "--json", "-q")
    assert (
        code == 0
        and err == b""
        and json.loads(out)
        == {
            **{"schema": "mmx.indexed/1", "index": "a.idx", "space": "small"},
            **{"rows": 10, "embedded": 0, "kept": 9, "moved": 0, "dropped": 0},
        }
    )
    code, out, _ = in_small("search", "a.idx", "data/red.png - 'blue'", "--modality", "image", "--top", 2, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["schema"] == "mmx.hits/1" and answer["query"] == "data/red.png - 'blue'"
    assert answer["hits"][0].keys() == {"path", "modality", "score", "standing", "start"}
    assert answer["hits"][0]["path"] == "data/red.png" and answer["hits"][0]["start"] is None
    code, out, _ = in_small("search", "a.idx", "something red", "--modality", "text", "--json")
    assert json.loads(out)["hits"][0] | {"score": 0, "standing": 0} == {
        **{"path": "data/words.txt", "modality": "text", "score": 0, "standing": 0, "start": None},
        **{"line": 1, "text": "something red"},
    }
    code, out, _ = in_small("search", "a.idx", "data/low.wav", "--top", 1)
    assert code == 0 and out.decode().split()[1:] == ["sound", "data/low.wav"]


def test_index_names_what_it_skips(in_small, data: Path) -> None:
    (data / "broken.png").write_bytes(b"\x89PNG")
    code, out, _ = in_small("index", "data", "-o", "a.idx", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 6 and Path(lines[0]["input"]).name == "broken.png" and lines[0]["exit_code"] == 3
    assert lines[1]["schema"] == "mmx.indexed/1" and lines[1]["rows"] == 10 and lines[2]["exit_code"] == 6


def test_files_that_a_space_has_no_encoder_for_are_left_out(in_small, monkeypatch, data: Path) -> None:
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space(without="sound"))
    code, _, err = in_small("index", "data", "-o", "a.idx")
    assert code == 0 and b"2 files left out" in err and b"8 rows" in err


@pytest.mark.parametrize("what", ["red.png", "low.wav", "words.txt"])
def test_a_query_from_stdin(in_small, monkeypatch, data: Path, what: str) -> None:
    in_small("index", "data", "-o", "a.idx")
    stdin = SimpleNamespace(buffer=io.BytesIO((data / what).read_bytes()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, err = in_small("search", "a.idx", "-", "--json", "--top", "1")
    modality = {"png": "image", "wav": "sound", "txt": "text"}[what[-3:]]
    assert code == 0 and json.loads(out)["hits"][0]["modality"] == modality, err


def test_hits_are_drawn(in_small, tmp_path: Path, data: Path) -> None:
    video(data / "a.mkv", sounds=True)
    in_small("index", "data", "-o", "a.idx", "--every", "5")
    (data / "green.png").unlink()  # since it was indexed
    assert in_small("search", "a.idx", "red – 狐", "--sheet", "hits.png", "--top", 30)[0] == 0
    sheet = Image.open(tmp_path / "hits.png")
    assert sheet.width > 900 and len(sheet.getcolors(1 << 24)) > 100
    assert in_small("search", "a.idx", "red", "--sheet", "hits.png")[0] == 2
    assert in_small("search", "a.idx", "red", "--sheet", "hits.png", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("index data", 2),
        ("index nowhere -o b.idx", 2),
        ("index - -o b.idx", 2),
        ("index data -o data/red.png", 2),
        ("index data -o data", 2),
        ("search b.idx red", 2),
        ("search data red", 2),
        ("search a.idx", 2),
        ("search a.idx ''", 2),
        ("search a.idx nope.wav", 2),
        ("search a.idx data/broken.png", 3),
        ("search a.idx red --modality video", 2),
        ("search a.idx red --top 0", 2),
        ("search a.idx red --sheet hits.jpg", 2),
        ("search a.idx red --space nowhere", 2),
    ],
)
def test_exit_codes(in_small, data: Path, line: str, code: int) -> None:
    in_small("index", "data", "-o", "a.idx", "-q")
    (data / "broken.png").write_bytes(b"\x89PNG")
    got, out, err = in_small(*(word.strip("'") for word in line.split()))
    assert got == code and b"bug" not in err and out == b"", err
    assert not Path("b.idx").exists()
