"""`mmx demo`: what its buttons make is what the commands make; the page asks nobody else for anything."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mmx.errors import InputError
from mmx.media.given import Artifact, Done, Given, Job
from mmx.media.image import png_bytes
from mmx.options import Settings
from mmx.serving.demo import make_page, show_page, translation, tries
from mmx.serving.demo_tabs import edit, errors_shown, picture_input, search
from mmx.translate.job import run
from mmx.translate.load import load
from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT

gr = pytest.importorskip("gradio")
BARK = ROOT / "assets" / "samples" / "bark.wav"


def test_a_button_makes_what_the_command_makes(tmp_path: Path) -> None:
    paths, heard = translation("sound2img", tmp_path)(str(BARK), 3, 2)
    job = Job((Given("bark.wav", BARK.read_bytes()),), Settings(seed=3), (0, 1))
    done = run(load("sound2img"), job)
    assert [Path(path).read_bytes() for path in paths] == [artifact.data for artifact in done.artifacts]
    assert heard == dict(done.heard[0])
    (drawn,), _ = translation("text2img", tmp_path)("a photo of a seashore", 0, 1)
    assert Path(drawn).read_bytes().startswith(b"\x89PNG")


def test_what_can_not_be_translated_is_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "junk.wav").write_bytes(b"junk")
    for given, says in ((None, "no input"), (str(tmp_path / "junk.wav"), "not a sound")):
        with pytest.raises(gr.Error, match=says):
            translation("sound2img", tmp_path)(given, 0, 1)


def test_an_edit_asks_for_what_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"a picture")
    asked: list[tuple[str | None, Job]] = []
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(gr.Progress, "__call__", lambda self, step: steps.append(step))

    def run_it(editor: SimpleNamespace, job: Job) -> Done:
        asked.append((editor.decoder, job))
        editor.watch(3, 30, {})
        return Done([Artifact(b"edited", {})], [[]])

    monkeypatch.setattr("mmx.serving.demo_tabs.load", lambda command, decoder: SimpleNamespace(decoder=decoder))
    monkeypatch.setattr("mmx.serving.demo_tabs.run", run_it)
    for text, decoder in (("a fire", "starter/image"), ("an old woman", None)):
        assert Path(edit(tmp_path)(str(tmp_path / "a.png"), text, 3)).read_bytes() == b"edited"
        found, job = asked.pop()
        assert found == decoder and job.command == "edit" and job.settings == Settings(seed=3)
        assert job.inputs == (Given("a.png", b"a picture"), Given(text, text.encode(), "plus", is_text=True))
    assert steps == [(3, 30)] * 2
    with pytest.raises(gr.Error, match="no picture"):
        edit(tmp_path)(None, "a fire", 0)


def test_pictures_are_handed_over_as_they_were_given() -> None:
    """Gradio would open them, and write those of other modes anew."""
    given = picture_input()
    assert given.preprocess(SimpleNamespace(path="a.png")) == "a.png" and given.preprocess(None) is None


def test_hints_are_shown_but_for_those_of_commands(tmp_path: Path) -> None:
    (tmp_path / "wall.png").write_bytes(png_bytes(Image.new("RGB", (64, 64))))
    with pytest.raises(gr.Error, match="no face found; give a picture in which"):
        edit(tmp_path)(str(tmp_path / "wall.png"), "an old woman", 0)
    with pytest.raises(gr.Error) as caught, errors_shown():
        raise InputError("too large", hint="--size 64")
    assert caught.value.message == "too large"


def test_a_search_finds_what_it_is_asked_for_among_its_own_files(tmp_path: Path, monkeypatch) -> None:
    (drawn,), _ = translation("text2img", tmp_path)("a photo of a seashore", 0, 1)
    (tmp_path / "dark.png").write_bytes(png_bytes(Image.new("RGB", (64, 64))))
    both = Image.open(search(tmp_path)([str(tmp_path / "dark.png"), drawn], "a photo of a seashore")).convert("RGB")
    one = Image.open(search(tmp_path)([drawn], "a photo of a seashore")).convert("RGB")
    assert both.width > 1.5 * one.width  # files of this search alone
    assert both.crop((0, 18, 192, 210)).tobytes() == one.crop((0, 18, 192, 210)).tobytes()  # the seashore comes first
    (tmp_path / "junk.png").write_bytes(b"\x89PNG junk")
    junk, warned = str(tmp_path / "junk.png"), []
    monkeypatch.setattr(gr, "Warning", warned.append)
    again = Image.open(search(tmp_path)([drawn, junk], "a photo of a seashore")).convert("RGB")
    assert again.tobytes() == one.tobytes() and len(warned) == 1 and warned[0].startswith("junk.png: ")
    for given, query, says in (
        (None, "dog", "no files"),
        ([drawn], drawn, "a query is a text"),
        ([junk], "dog", "nothing can be searched"),
    ):
        with pytest.raises(gr.Error, match=says):
            search(tmp_path)(given, query)


def test_the_page_has_a_tab_of_each(tmp_path: Path) -> None:
    config = make_page(tmp_path).config
    names = ("sound2img", "voice2face", "img2speech", "text2img", "edit", "search")
    assert all(f"go-{name}" in str(config) for name in names)
    shown = [(one["type"], one["props"].get("buttons")) for one in config["components"]]
    media = [buttons for kind, buttons in shown if kind in ("audio", "image", "gallery")]
    assert len(media) == 10 and all("share" not in (buttons or ["share"]) for buttons in media)


def test_what_is_offered_to_try_is_there() -> None:
    assert all(Path(path).is_file() for command in ("sound2img", "voice2face") for path in tries(command))
    assert all(isinstance(text, str) for text in tries("text2img"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_click_draws_a_picture_and_asks_nobody_else(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    address = show_page(page, tmp_path, 7866)
    browser = Browser(tmp_path / "profile")
    try:
        html = urllib.request.urlopen(address).read().decode()
        assert not re.findall(r"(?:src|href)=.https?://(?!127)", html)
        browser.open(address)
        browser.until("[...document.querySelectorAll('button[role=tab]')].find(b => b.textContent.includes('Text'))")
        browser.value(
            "[...document.querySelectorAll('button[role=tab]')].find(b => b.textContent.includes('Text')).click()"
        )
        browser.until("document.querySelector('#go-text2img')")
        browser.value("document.querySelector('#go-text2img').click()")
        seen = "document.querySelector('img[src*=text2img]')"
        assert browser.until(f"{seen} && {seen}.naturalWidth") == 64
        browser.picture().save(tmp_path / "seen.png")
        tabs = "[...document.querySelectorAll('button[role=tab]')]"
        browser.value(f"{tabs}.find(b => b.textContent.includes('Search')).click()")
        browser.until("document.querySelector('#go-search')")
        browser.value("document.querySelector('#go-search').click()")
        browser.until("document.body.textContent.includes('there are no files')")
        assert len(browser.requests) > 20  # scripts, styles, pictures
        assert all(url.startswith((address, "data:", "blob:")) for url in browser.requests)
    finally:
        browser.close()
        page.close()
