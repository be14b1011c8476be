"""`mmx report`: results beside their inputs on one page that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmx.digest import sha256
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import png_bytes
from mmx.media.provenance import SCHEMA, dumps, embed_wav, text_chunks
from tests.browser import CHROMIUM, Browser
from tests.conftest import RATE, tone


def record(*inputs: dict[str, Any], command: str = "sound2img", heard: list | None = None) -> dict[str, Any]:
    own = {"schema": SCHEMA, "version": "0", "synthetic": True, "command": command, "inputs": list(inputs)}
    own |= {"layout": "single", "indices": [0], "settings": {"seed": 0}, "heard": heard or [[]], "libraries": {}}
    return own | {role: {"name": f"starter/{role}", "sha256": "0"} for role in ("bridge", "decoder")}


def entry(name: str, data: bytes, role: str = "source", **more: Any) -> dict[str, Any]:
    return {"role": role, "name": name, "sha256": sha256(data), "weight": 1.0, **more}


def picture(colour: str, about: dict[str, Any] | None = None) -> bytes:
    return png_bytes(Image.new("RGB", (8, 8), colour), text_chunks(about) if about else {})


SOUND, OTHER = (wav_bytes(Waveform(tone(0.3, hertz), RATE)) for hertz in (440, 880))


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of every kind of result, and a folder of inputs beside it."""
    folder, inputs = tmp_path / "results", tmp_path / "inputs"
    (folder / "deep").mkdir(parents=True)
    inputs.mkdir()
    (inputs / "bark.wav").write_bytes(SOUND)
    photo = picture("green")
    (inputs / "photo.png").write_bytes(photo)
    heard = [[["<script>alert(1)</script>", 0.9], ["dog", 0.1]]]
    (folder / "dog.png").write_bytes(picture("red", record(entry("bark.wav", SOUND), heard=heard)))
    lost = record(entry("bark.wav", OTHER), entry("lost.wav", b"x", "mix"), heard=[[["cat", 1.0]]])
    (folder / "deep" / "other.png").write_bytes(picture("blue", lost))
    typed = record(entry("a sea & <b>", b"a sea & <b>", text="a sea & <b>"), command="text2img")
    (folder / "typed.png").write_bytes(picture("cyan", typed))
    said = record(entry("photo.png", photo), command="img2speech")
    (folder / "said.wav").write_bytes(embed_wav(OTHER, said))
    frames, buffer = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")], io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], comment=dumps(record()).encode())
    (folder / "walk.gif").write_bytes(buffer.getvalue())
    (folder / "plain.png").write_bytes(picture("black"))
    (folder / "mesh.obj").write_bytes(b"v 0 0 0\n")
    words = {"schema": "mmx.caption/1", "inputs": [entry("photo.png", photo)], "captions": [{"text": "green grass"}]}
    (folder / "said.jsonl").write_text(f"{json.dumps(words)}\n{{}}\nnothing\n")
    (folder / "broken.png").write_bytes(b"\x89PNG junk")
    table = {"sound2img": {"top1": 0.5}, "oracle": {"top1": 0.75, "fid": 3.0}}
    (folder / "metrics.json").write_text(json.dumps({"schema": "mmx.eval/1", "split": "val", "naming": table}))
    return folder


def test_the_page_shows_every_result_beside_its_inputs(mmx_in_process, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    code, _, err = mmx_in_process("report", results, "-o", out, "--inputs", tmp_path / "inputs", "--title", "a < b")
    assert code == 0 and b"8 results" in err and b"broken.png" in err, err.decode()
    text = out.read_text(encoding="utf8")
    page = Elements(text)
    cards = page.all("article")
    assert len(cards) == 8 and "<title>a &lt; b</title>" in text
    kept = kept_in(text)
    urls = {kept[one["data-src"] or ""] for tag in ("img", "audio", "video") for one in page.all(tag)}
    assert urls == {*kept.values()} and len(urls) == len(kept)
    sounds = [data_of(url) for url in urls if url.startswith("data:audio")]
    # bark.wav as it was heard, and not another of the same name, whose sound is said.wav's
    assert SOUND in sounds and len(sounds) == 2
    assert picture("green") in [data_of(url) for url in urls if url.startswith("data:image/png")]
    assert '"deep/other.png' in text.replace(">", '"') and "mix: lost.wav" in page.text
    assert "green grass" in page.text and any("green grass" in card["data-text"] for card in cards)
    assert "a sea & <b>" in page.text and "0.75" in page.text and "starter/decoder" in page.text
    labels = [json.loads(card["data-labels"] or "") for card in cards]
    assert ["<script>alert(1)</script>"] in labels and ["cat"] in labels
    assert len(page.all("script")) == 1 and "alert" not in re.search(r"<script>(.*)</script>", text, re.S).group(1)


def test_a_result_that_another_was_made_from_is_shown_there_too(mmx_in_process, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    dog = picture("red", record(entry("bark.wav", SOUND)))
    Path("made").mkdir()
    Path("made/dog.png").write_bytes(dog)
    Path("made/said.wav").write_bytes(embed_wav(OTHER, record(entry("dog.png", dog), command="img2speech")))
    assert mmx_in_process("report", "made")[0] == 0
    text = Path("made/report.html").read_text(encoding="utf8")
    shown = [kept_in(text)[one["data-src"] or ""] for one in Elements(text).all("img") if one["alt"] == "dog.png"]
    assert len(shown) == 2 and {data_of(url) for url in shown} == {dog}


def kept_in(page: str) -> dict[str, str]:
    """What a page's cards show, as data URLs by name."""
    return dict(re.findall("<i hidden id=(m[0-9]+)>([^<]*)</i>", page))


def data_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_other_script(
    mmx_in_process, results: Path, tmp_path: Path
) -> None:
    assert mmx_in_process("report", results, "-o", tmp_path / "r.html")[0] == 0
    text = (tmp_path / "r.html").read_text(encoding="utf8")
    page = Elements(text)
    assert not [value for _, found in page.found for name, value in found.items() if name in ("src", "href")]
    kept = kept_in(text)
    assert kept and all(url.startswith("data:") for url in kept.values())
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*)</script>", text, re.S).group(1)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{allowed}'" in policy
    assert "url(" not in text and "@import" not in text


def test_what_can_not_be_shown(mmx_in_process, results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, code, says in (
        ([tmp_path / "empty"], 2, b"nothing to show"),
        ([tmp_path / "nowhere"], 2, b"no such folder"),
        ([results, "-o", tmp_path / "r.txt"], 2, b"writes .html"),
        ([results, "--inputs", tmp_path / "nowhere"], 2, b"no such folder"),
    ):
        got, _, err = mmx_in_process("report", *words)
        assert got == code and says in err, err.decode()
    assert mmx_in_process("report", results)[0] == 0 and (results / "report.html").exists()
    code, _, err = mmx_in_process("report", results)
    assert code == 2 and b"exists" in err
    assert mmx_in_process("report", results, "--overwrite", "-q") == (0, b"", b"mmx: broken.png: not a picture\n"[:0])


def test_large_files_are_made_small(tmp_path: Path, mmx_in_process) -> None:
    Image.effect_noise((1500, 1200), 90).convert("RGB").save(tmp_path / "large.png")
    (tmp_path / "long.wav").write_bytes(wav_bytes(Waveform(tone(100.0), RATE)))
    assert mmx_in_process("report", tmp_path, "-o", tmp_path / "r.html")[0] == 0
    text = (tmp_path / "r.html").read_text(encoding="utf8")
    page, kept = Elements(text), kept_in(text)
    shown = next(kept[one["data-src"] or ""] for one in page.all("img") if one["alt"] == "large.png")
    assert max(Image.open(io.BytesIO(data_of(shown))).size) == 640
    assert len(data_of(kept[page.all("audio")[0]["data-src"] or ""])) < 31 * RATE * 2


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_filters_and_moves_by_keys(mmx_in_process, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "bark.wav").write_bytes(SOUND)
    for number in range(500):
        label = ("dog", "cat", "sea")[number % 3]
        about = record(entry("bark.wav", SOUND), heard=[[[label, 0.9]]])
        (folder / f"{number:03d}-{label}.png").write_bytes(picture("red", about))
    assert mmx_in_process("report", folder)[0] == 0
    assert len(kept_in((folder / "report.html").read_text(encoding="utf8"))) == 5  # and not 1,500
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(folder / "report.html")
        count = "document.getElementById('count').textContent"
        assert browser.value(count) == "500 of 500"
        assert browser.until("document.images[0].naturalWidth")
        browser.press("j", "j")
        browser.press("j", "j")
        assert "001-cat" in browser.value("document.activeElement.dataset.text")
        browser.press("Enter", "\r")
        assert browser.value("document.activeElement.querySelector('details').open") is True
        browser.press("/", "/")
        for letter in "sea":
            browser.press(letter, letter)
        assert browser.value(count) == "166 of 500"
        browser.press("Escape")
        assert browser.value(count) == "500 of 500"
        browser.value("label.value = 'cat'; label.dispatchEvent(new Event('input'))")
        assert browser.value(count) == "167 of 500"
        browser.value("label.value = ''; label.dispatchEvent(new Event('input'))")
        red = sum(pixel == (255, 0, 0) for pixel in browser.picture().getdata())
        assert red > 2 * 90 * 90  # of at least two pictures, enlarged
    finally:
        browser.close()
