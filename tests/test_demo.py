"""`mmx demo`: what its buttons make is what the commands make; the page asks nobody else for anything."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from mmx.media.given import Given, Job
from mmx.options import Settings
from mmx.serving.demo import make_page, show_page, translation
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
        asked = browser.value("performance.getEntriesByType('resource').map(r => r.name)")
        assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)
        browser.picture().save(tmp_path / "seen.png")
    finally:
        browser.close()
        page.close()
