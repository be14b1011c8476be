"""`mmx serve` and the commands that ask a space: what they get from it is what they make themselves."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmx.errors import UsageError
from mmx.media.audio import Waveform
from mmx.options import Settings
from mmx.recipes.asking import Captioning, Cutting, Searching, Tagging, filled
from mmx.serving.address import Address
from mmx.serving.client import Served
from mmx.serving.openapi import document
from mmx.serving.wire import ANYWHERE, Asked, pack, pack_answer, pack_question, unpack, unpack_answer, unpack_question
from mmx.spaces.query import Term
from mmx.spaces.question import ASKING, KINDS, Answer, Question, on_disk
from tests.conftest import ROOT
from tests.small_language import small_lm
from tests.test_video import video

pytest.importorskip("starlette")
from mmx.serving.app import Limits
from mmx.serving.asking import question_parameters
from tests.running_server import both_ways

SHORT = "--steps 1 --candidates 20"


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, bark: Path, debug_models) -> Path:
    """A folder of media, and an index of them."""
    from mmx.spaces.indexing import update
    from mmx.spaces.load import load_space

    folder = tmp_path_factory.mktemp("things")
    (folder / "media").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 30), colour).save(folder / "media" / f"{colour}.png")
    shutil.copy(bark, folder / "media" / "bark.wav")
    video(folder / "media" / "clip.mkv", seconds=4.0)
    (folder / "junk.wav").write_bytes(b"junk" * 100)
    (folder / "cut.mkv").write_bytes((folder / "media" / "clip.mkv").read_bytes()[:700])
    (folder / "words.txt").write_text("dog\ncat\n")
    space = load_space(str(debug_models[1]), bridge=str(debug_models[0]), device="cpu")
    update(folder / "my.idx", space, sorted((folder / "media").iterdir()))
    update(folder / "other.idx", load_space(str(debug_models[1]), device="cpu"), [folder / "media" / "red.png"])
    return folder


@pytest.fixture(scope="module")
def bark() -> Path:
    return ROOT / "assets" / "samples" / "bark.wav"


LINES = [
    "tag media --top 2 --every 1",
    "tag media/bark.wav media/red.png --labels fox,hen,owl --threshold 0.3 --json",
    "tag junk.wav",
    "tag junk.wav cut.mkv media/red.png --json",
    "tag - -q",
    "tag words.txt",
    "tag media --labels ,",
    "embed media words.txt --text dog -o out/v.safetensors",
    "embed media --every 1 --json",
    "embed - -o -",
    "embed junk.wav media/red.png -o out/v.safetensors",
    "localize media/red.png dog -o out/heat.png --mask out/mask.png",
    "localize media/red.png media/bark.wav --json",
    "localize junk.wav dog",
    "localize media/red.png -",
    "search my.idx dog",
    "search ./my.idx - --json --top 2",
    "search my.idx media/red.png+0.5*'dog' --modality sound --sheet out/hits.png",
    "search my.idx media/clip.mkv --every 1 --exact --json",
    "search ./other.idx dog",
    "search my.idx junk.wav",
    "search my.idx dog --space nowhere",
    f"caption media/red.png media/bark.wav {SHORT} -o out/c.jsonl -n 2",
    f"caption media/red.png junk.wav media/blue.png {SHORT} --batch 2 --json",
    f"caption - {SHORT} --fast --prefix red --seed 3",
    f"caption media/red.png {SHORT} --lm damaged",
    "tag media --space damaged",
    "tag media --device cuda:77",
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_does_with_a_server_what_it_does_without(
    line: str, start, mmx_in_process, debug_models, language: Path, things: Path, tmp_path: Path, monkeypatch
) -> None:
    """Its files, what it says, and its exit code; the server is really asked where there is anything to compute."""
    here = tmp_path / "here"
    here.mkdir()
    for path in things.iterdir():
        (here / path.name).symlink_to(path)
    (here / "damaged").mkdir()
    monkeypatch.chdir(here)
    bridge, decoder = (os.path.relpath(path) for path in debug_models)
    words = [word.replace("+", " + ") for word in line.split(" ")]  # a sum is one word
    words += [] if "--space" in words else ["--space", decoder, "--bridge", bridge]
    words += ["--lm", os.path.relpath(language)] if words[0] == "caption" and "--lm" not in words else []
    running = start()
    alone, served = both_ways(mmx_in_process, words, (things / "media" / "bark.wav").read_bytes(), monkeypatch)
    assert alone == served
    before_any_work = "nowhere" in line or "--labels ," in line
    assert (running.app.state.line.done == 0) == before_any_work


def test_a_space_is_loaded_once_for_all_commands_that_ask_it(
    start, mmx_in_process, debug_models, language: Path, things: Path, tmp_path: Path
) -> None:
    running, space = start(), ("--space", debug_models[1], "--bridge", debug_models[0])
    red, say = things / "media" / "red.png", ("--server", running.where)
    for line in (
        ("tag", red),
        ("embed", red, "--json"),
        ("localize", red, "dog"),
        ("search", things / "my.idx", "dog"),
    ):
        assert mmx_in_process(*line, *space, *say)[0] == 0
    shelf = running.app.state.shelf
    assert len(shelf) == 1
    assert mmx_in_process("caption", red, *SHORT.split(), "--lm", language, *space, *say)[0] == 0
    assert len(shelf) == 2
    assert [row["command"] for row in json.loads(running.ask("/models")[1])["loaded"]] == ["lm", "space"]


def test_what_a_space_is_made_of_is_loaded_anew_where_it_changed(
    start, debug_models, things: Path, tmp_path: Path
) -> None:
    from mmx.spaces.base import Calibration, Threshold
    from mmx.spaces.calibration import as_json, kept_at

    bridge, decoder = tmp_path / "bridge", tmp_path / "decoder"
    shutil.copytree(debug_models[0], bridge)
    shutil.copytree(debug_models[1], decoder)
    running, models = start(), {"space": str(decoder), "bridge": str(bridge)}
    served = Served(Address(Path(running.where)), Asked("tag", models, ANYWHERE))
    question = Question("tag", Tagging(), (Term("file", str(things / "media" / "red.png")),))
    (first,) = served.ask(question)
    assert first.results[0]["none_of_these"] is None
    shelf = running.app.state.shelf
    space = shelf.take(served.asked)
    assert shelf.take(served.asked) is space
    known = Calibration(space.facts.fingerprint, tags={"image": Threshold(9.0, 1.0, 1.0)})
    kept_at(space.facts.fingerprint).parent.mkdir(parents=True, exist_ok=True)
    kept_at(space.facts.fingerprint).write_bytes(as_json(known))
    try:
        assert served.ask(question)[0].results[0]["none_of_these"] is True
        weights = (bridge / "model.safetensors").read_bytes()
        (bridge / "model.safetensors").write_bytes(weights[:100])
        status, body = running.ask("/v1/questions", pack_question(served.asked, question.sent()))
        assert status == 409 and json.loads(body)["error"] == "ModelError"
    finally:
        kept_at(space.facts.fingerprint).unlink()


def test_a_server_that_goes_away_in_the_middle_is_done_without(
    start, mmx_in_process, debug_models, things: Path, tmp_path: Path, monkeypatch
) -> None:
    start()
    line = ("tag", things / "media", "--space", debug_models[1], "--bridge", debug_models[0])
    alone, ask, asked = mmx_in_process(*line), Served.ask, []

    def once(self: Served, question: Question) -> Any:
        asked.append(question)
        if len(asked) == 3:
            self.address = Address(tmp_path / "gone.sock", required=False)
        return ask(self, question)

    monkeypatch.setattr(Served, "ask", once)
    assert mmx_in_process(*line, "--server", "auto") == alone and len(asked) == 3


def test_a_served_question_imports_nothing_heavy(start, debug_models, language: Path, things: Path, tmp_path) -> None:
    running, space = start(), ["--space", debug_models[1], "--bridge", debug_models[0], "--server", "auto"]
    red = things / "media" / "red.png"
    script = "import json, sys\nfrom mmx.cli.app import main\nfor line in json.loads(sys.argv[1]):\n"
    script += " try:\n  main(line)\n except SystemExit as left:\n  assert not left.code\nprint(*sys.modules)"
    lines = [
        ["tag", red, *space],
        ["search", things / "my.idx", "dog", *space],
        ["localize", red, "dog", "-o", tmp_path / "h.png", *space],
        ["embed", red, "--json", *space],
        ["caption", red, *SHORT.split(), "--lm", language, *space],
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([[str(word) for word in line] for line in lines])],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0 and (tmp_path / "h.png").exists(), done.stderr
    heavy = {"torch", "numpy", "PIL", "soundfile", "av", "huggingface_hub", "starlette", "uvicorn", "rich.console"}
    assert not heavy & set(done.stdout.splitlines()[-1].split()) and running.app.state.line.done == 12


def form(*parts: tuple[str, str, bytes]) -> bytes:
    made = b""
    for role, name, data in parts:
        file = f'; filename="{name}"' if name else ""
        made += f'--x\r\nContent-Disposition: form-data; name="{role}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return made + b"--x--\r\n"


@pytest.fixture
def asking(start, debug_models, language: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Asks as anybody can, in the debug models' space: (status, the answer)."""
    running = start(Limits(size=1_000_000, patience=0.5))
    models = f"space={debug_models[1]}&bridge={debug_models[0]}"

    def ask(command: str, query: str = "", body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
        own = f"{models}&lm={language}" if command == "caption" else models
        status, answer = running.ask(f"/v1/{command}?{own}{query}", body, **headers)
        return status, json.loads(answer)

    ask.running = running
    return ask


def test_anybody_can_ask(asking, mmx_in_process, debug_models, language: Path, things: Path) -> None:
    """With the numbers that the commands say."""
    red, bark = ((things / "media" / name).read_bytes() for name in ("red.png", "bark.wav"))
    space, kind = ("--space", debug_models[1], "--bridge", debug_models[0]), "multipart/form-data; boundary=x"

    def said(*words: object) -> dict[str, Any]:
        return json.loads(mmx_in_process(*words, "--json", *space)[1])

    own = said("tag", things / "media" / "bark.wav", "--labels", "fox,hen")
    status, told = asking("tag", "&labels=fox,hen&name=bark.wav", bark)
    assert status == 200 and told["schema"] == "mmx.answered/1" and told["results"][0]["tags"] == own["tags"]
    own = said("embed", things / "media" / "red.png")
    assert asking("embed", "", red)[1]["results"][0]["vector"] == own["vector"]
    assert asking("embed", "", b"a red car", Content_Type="text/plain")[1]["results"][0]["modality"] == "text"
    own = said("localize", things / "media" / "red.png", "dog")
    status, told = asking("localize", "&query=dog&heat=1", red)
    assert told["results"][0] == {name: own[name] for name in ("here", "peak", "box", "score")}
    assert Image.open(io.BytesIO(base64.b64decode(told["drawings"][0]))).size == (40, 30)
    own = said("search", things / "my.idx", f"'dog' - 0.5*{things}/media/bark.wav")
    parts = form(("query", "", b"dog"), ("query:-0.5", "bark.wav", bark))
    status, told = asking("search", f"&index={things}/my.idx", parts, Content_Type=kind)
    assert [hit["score"] for hit in told["results"][0]["hits"]] == [hit["score"] for hit in own["hits"]]
    assert asking("search", f"&index={things}/my.idx&query=dog&top=2")[1]["results"][0]["hits"][1]["path"]
    own = said("caption", things / "media" / "bark.wav", *SHORT.split(), "--lm", language)
    status, told = asking("caption", "&steps=1&candidates=20&name=bark.wav", bark)
    assert status == 200 and told["results"][0]["captions"] == own["captions"]
    parts = form(("source", "red.png", red), ("source:0.5", "bark.wav", bark))
    assert asking("caption", "&steps=1&candidates=20", parts, Content_Type=kind)[0] == 200


BAD = [
    ("tag", "", b"", 422),
    ("tag", "", b"junk" * 100, 422),
    ("tag", "&name=cut.mkv", b"\x1a\x45\xdf\xa3" + b"x" * 500, 422),
    ("tag", "&labels=,", b"\x89PNG", 422),
    ("tag", "&top=0", b"a", 400),
    ("tag", "&top=many", b"a", 400),
    ("tag", "&nonsense=1", b"a", 400),
    ("tag", "&device=tpu", b"a", 400),
    ("tag", "", b"a dog", 422),
    ("embed", "&every=nan", b"a", 400),
    ("embed", "&every=1", b"a" * 2_000_000, 413),
    ("search", "&query=dog", b"", 400),
    ("search", "&query=dog&index=/nowhere", b"", 400),
    ("search", "&query=dog&index=%00", b"", 400),
    ("search", "&query=dog&index=/tmp", b"", 400),
    ("search", "&query=dog&index=/tmp&modality=smell", b"", 400),
    ("localize", "", b"a", 422),
    ("localize", "&query=dog", b"", 422),
    ("localize", "&query=dog", b"no picture", 422),
    ("caption", "&candidates=1", b"a", 400),
    ("caption", "&beam=99999", b"a", 400),
    ("caption", "&dtype=fp3", b"a", 400),
    ("caption", "&prefix=" + "a%20" * 500, b"a red car", 400),
]


def test_bad_requests_are_told_so_and_take_nothing_down(asking, debug_models, things: Path) -> None:
    for command, query, body, wanted in BAD:
        status, answer = asking(command, query, body)
        assert status == wanted, (command, query, status, answer)
        assert answer["schema"] == "mmx.error/1" and "bug" not in answer["message"], answer
    for role, data, wanted in (
        ("source:x", b"a", 400),
        ("source:nan", b"a", 400),
        ("source:0", b"a", 400),
        ("nothing", b"a", 400),
        ("source", b"", 422),
    ):
        status, answer = asking("caption", "", form((role, "", data)), Content_Type="multipart/form-data; boundary=x")
        assert status == wanted and "bug" not in answer["message"], (role, answer)
    with asking.running.raw() as half:  # slow: what was promised never comes
        half.sendall(b"POST /v1/tag HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        assert b" 408 " in half.recv(1000)
    with asking.running.raw() as cut:  # broken off
        cut.sendall(b"POST /v1/questions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    asked = Asked("tag", {"space": str(debug_models[1])}, ANYWHERE)
    good = {"question": "tag", "terms": [{"kind": "file", "value": "a.png", "weight": 1.0}]}
    good["options"] = {"labels": ["dog"], "top": 3, "threshold": 0.0, "every": 2.0}
    for wrong in (
        {"question": "nothing"},
        {"question": ["tag"]},
        {"terms": [1]},
        {"terms": [{"kind": "folder", "value": "a", "weight": 1.0}]},
        {"terms": [{"kind": "file", "value": "a\0", "weight": 1.0}]},
        {"terms": [{"kind": "file", "value": "\ud800", "weight": 1.0}]},
        {"terms": []},
        {"terms": good["terms"] * 2},
        {"terms": [{"kind": "text", "value": "/etc/hostname", "weight": 1.0}]},  # it would be read there
        {"options": {}},
        {"options": good["options"] | {"top": 0}},
        {"options": good["options"] | {"top": True}},
        {"options": good["options"] | {"labels": "dog"}},
        {"options": good["options"] | {"more": 1}},
        {"command": "sound2img"},
    ):
        status, answer = asking.running.ask("/v1/questions", pack(asked.as_dict() | good | wrong, [b"a", b"b"]))
        assert status == 422 and b"bug" not in answer, (wrong, answer)
    assert asking("tag", "", (things / "media" / "red.png").read_bytes())[0] == 200
    assert asking.running.app.state.line.waiting == 0


def test_the_document_names_every_option(start) -> None:
    running = start()
    about = json.loads(running.ask("/openapi.json")[1])
    assert about == document(Limits().size)
    for command in ASKING:
        named = {one["name"] for one in about["paths"][f"/v1/{command}"]["post"]["parameters"]}
        assert named == question_parameters(command).keys() and {"space", "bridge", "device"} <= named
    assert f"/v1/{ASKING[0]}".encode() in running.ask("/")[1]


def test_questions_and_answers_travel(tmp_path: Path) -> None:
    """Numbers to the last bit; contents that a term has, and only those; errors with their kinds."""
    asked = Asked("search", {"space": None}, ANYWHERE)
    terms = (Term("text", "a dog", 0.1), Term("file", "b.png", -1 / 3, b"data"), Term("stdin", "-", 1.0, b""))
    for options in (Tagging(("a", "b"), 4, 0.1, 0.3), Searching("/x", 3, None, True), Captioning(steps=None, num=3)):
        kind = next(name for name, kind in KINDS.items() if kind.options is type(options))
        question = Question(kind, options, terms, (b"blob", b""))
        assert unpack_question(*unpack(pack_question(asked, question))) == question
    told = Answer([{"score": 0.1 + 0.2}], [b"\0\1"], ["note"], UsageError("what", "why"))
    back = unpack_answer(pack_answer(told))
    assert (back.results, back.blobs, back.notes) == (told.results, told.blobs, told.notes)
    assert type(back.error) is UsageError and back.error.hint == "why"
    with pytest.raises((KeyError, TypeError, ValueError)):
        filled(Cutting, {"every": "2"})
    question = Question("embed", Cutting(), (Term("file", "a.mkv", data=b"v"), Term("stream", "b.mkv", data=b"w")))
    with on_disk(question) as own:
        (first, second), path = own.terms, own.terms[0].source
        assert path.suffix == ".mkv" and path.read_bytes() == b"v" and first.name == "a.mkv" and second.data == b"w"
    assert not path.exists() and Settings().device == "auto"


def test_batches_would_change_bytes() -> None:
    """Why a server computes what waits in line one by one: with another one in its batch a vector has other last
    bits."""
    from mmx.spaces.load import load_space

    space, generator = load_space(device="cpu"), torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8, generator=generator).numpy()
    waves = torch.randn(8, 16_000, generator=generator).mul(0.1).numpy()
    media = {"image": [Image.fromarray(own) for own in noise], "sound": [Waveform(own, space.rate) for own in waves]}
    media["text"] = [f"a photo of {number} dogs" for number in range(8)]
    same = []
    for modality, own in media.items():
        alone, together = torch.cat([space.encode([one], modality) for one in own]), space.encode(own, modality)
        assert torch.allclose(alone, together, atol=1e-5)
        same.append(torch.equal(alone, together))
    assert not all(same)
