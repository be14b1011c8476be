"""`mmx index` with files embedded in other processes: the shards of one, what kills its process, who comes late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmx.cli.consult import Consultation
from mmx.cli.talk import Speaker
from mmx.cli.workers import Workers
from mmx.errors import DeadlyError, ModelError
from mmx.options import Saying
from mmx.recipes.asking import Cutting
from mmx.serving.wire import ANYWHERE, Asked, pack_answer, pack_question, unpack, unpack_answer, unpack_question
from mmx.spaces import embedding, indexing
from mmx.spaces.answers import Consulted
from mmx.spaces.compass import known_means
from mmx.spaces.embedding import File, chunked
from mmx.spaces.indexing import Indexed, update
from mmx.spaces.question import Answer, Question
from tests.small_space import small_space
from tests.test_video import video


class Far:
    """An engine as a cluster's: it sees bytes, answers all at once, and dies of some inputs."""

    width = 3

    def __init__(self, look: Callable[[Question], None] = lambda question: None) -> None:
        self.look, self.lock, self.asked = look, threading.Lock(), []
        self.consulted = Consulted(small_space())

    def ask(self, question: Question) -> list[Answer]:
        sent = pack_question(Asked("index", {}, ANYWHERE), question.sent())
        there, found = unpack_question(*unpack(sent)), Answer()
        self.asked.append([Path(term.name).name for term in there.terms])
        self.look(there)
        with self.lock:
            for answer in self.consulted.run(there):
                found.add(answer)
        return [unpack_answer(pack_answer(found))]


def workers(engine: Any) -> Workers:
    return Workers(Consultation(engine, engine.consulted.facts, Speaker(Saying())), Cutting(1.0))


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> list[Path]:
    monkeypatch.setattr(indexing, "SETTLED", 0)
    monkeypatch.setattr(embedding, "BATCH", 3)
    monkeypatch.setattr(indexing, "SHARD", 4)
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (20, 10), (20 * number, 0, 90)).save(folder / f"{number}.png")
    (folder / "5.txt").write_text("red\nblue\n")
    (folder / "junk.png").write_bytes(b"\x89PNG no")
    video(folder / "clip.mkv", seconds=2.0)
    return sorted(folder.iterdir())


def made(folder: Path, data: list[Path], **options: Any) -> tuple[Indexed, dict[str, bytes]]:
    from mmx.spaces.parts import Cuts

    done = update(folder, small_space(), data, Cuts(1.0), **options)
    return done, {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_an_index_is_byte_for_byte_that_of_one_process(tmp_path: Path, data: list[Path]) -> None:
    """Whoever answers first."""
    late = threading.Event()

    def first_last(question: Question) -> None:
        assert len(question.terms) <= 3
        if question.name.endswith("0.png"):
            assert late.wait(60)
        late.set()

    own, by = made(tmp_path / "a.idx", data), workers(Far(first_last))
    done, there = made(tmp_path / "b.idx", data, by=by)
    assert there == own[1] and (done.rows, done.embedded) == (own[0].rows, own[0].embedded)
    assert [(path, str(error)) for path, error in done.unreadable] == [(p, str(e)) for p, e in own[0].unreadable]
    assert made(tmp_path / "b.idx", data, by=by)[0].kept == 11  # and nothing is asked again
    assert (by.means() == known_means(small_space())).all()


def test_what_kills_every_process_is_left_out_as_if_it_could_not_be_read(tmp_path: Path, data: list[Path]) -> None:
    def dies(question: Question) -> None:
        if any(Path(term.name).name in ("4.png", "clip.mkv") for term in question.terms):
            raise DeadlyError(f"{question.name}: 3 workers died of it")

    engine = Far(dies)
    done, there = made(tmp_path / "b.idx", data, by=workers(engine))
    dead = {Path(path).name: str(error) for path, error in done.unreadable if isinstance(error, DeadlyError)}
    assert dead.keys() == {"4.png", "clip.mkv"} and all("died of it" in text for text in dead.values())
    assert ["3.png", "5.png"] in engine.asked or ["3.png", "5.txt"] in engine.asked  # together, without it
    for name in dead:
        (tmp_path / "data" / name).write_bytes(b"\x89PNG no")
    assert {k: v for k, v in made(tmp_path / "a.idx", data)[1].items() if k.endswith("npy")} == {
        k: v for k, v in there.items() if k.endswith("npy")
    }


def test_what_no_file_is_to_blame_for_ends_it_and_keeps_what_is_done(tmp_path: Path, data: list[Path]) -> None:
    def gone(question: Question) -> None:
        if any(term.name.endswith("6.png") for term in question.terms):
            raise ModelError("all workers are gone")

    with pytest.raises(ModelError, match="gone"):
        made(tmp_path / "a.idx", data, by=workers(Far(gone)))
    from mmx.spaces.index import Index

    assert 3 <= len(Index.open(tmp_path / "a.idx")) < 12


def test_a_file_that_goes_away_in_the_meantime_is_named(tmp_path: Path, data: list[Path], monkeypatch) -> None:
    looked = indexing._looked_at

    def vanishing(path: str, every: float) -> File:
        file = looked(path, every)
        if path.endswith("2.png"):
            Path(path).unlink()
        return file

    monkeypatch.setattr(indexing, "_looked_at", vanishing)
    done, _ = made(tmp_path / "a.idx", data, by=workers(Far()))
    assert {Path(path).name for path, _ in done.unreadable} == {"2.png", "junk.png"} and done.embedded == 10


def test_what_is_embedded_together_follows_from_the_files(monkeypatch) -> None:
    monkeypatch.setattr(embedding, "BATCH", 3)
    monkeypatch.setattr(embedding, "CHUNK", 100)
    files = [File(str(number), "", 0.0, None, size) for number, size in enumerate((1, 1, 1, 1, 99, 1, 500, 0))]
    chunks = [[file.path for file in chunk] for chunk in chunked(files)]
    assert chunks == [["0", "1", "2"], ["3", "4"], ["5"], ["6"], ["7"]]
    assert list(chunked([])) == []
