"""Chromium, where there is one, as a person's browser: it opens pages, presses keys, and sees."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """Chromium without a window, driven over the pipe of its debugger."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes

        def plug() -> None:
            saved = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(saved[0], 3)
            os.dup2(saved[1], 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
        self.process = subprocess.Popen(
            [CHROMIUM, *options, f"--user-data-dir={profile}", "--window-size=1300,900", "about:blank"],
            preexec_fn=plug,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.from_, self.number, self.session = ours[1], os.fdopen(theirs[0], "rb"), 0, None
        self.requests: list[str] = []  # all addresses that pages asked for
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Network.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        return self.wait(lambda got: got.get("id") == self.number)["result"]

    def wait(self, wanted: Any) -> dict[str, Any]:
        while True:
            data = b"".join(iter(lambda: self.from_.read(1), b"\0"))
            got = json.loads(data)
            if got.get("method") == "Network.requestWillBeSent":
                self.requests.append(got["params"]["request"]["url"])
            if wanted(got):
                return got

    def open(self, page: Path | str) -> None:
        """Go to a file or an address, and wait until it is loaded."""
        self.number += 1
        url = page if isinstance(page, str) else page.as_uri()
        message = {"id": self.number, "method": "Page.navigate", "params": {"url": url}}
        os.write(self.to, json.dumps(message | {"sessionId": self.session}).encode() + b"\0")
        self.wait(lambda got: got.get("method") == "Page.loadEventFired")

    def value(self, script: str) -> Any:
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait for what a script gives to be true, and return it."""
        ask = f"const value = {script}; if (value) {{clearInterval(timer); done(value)}}"
        waiting = f"new Promise(done => {{const timer = setInterval(() => {{{ask}}}, 50)}})"
        found = self.ask("Runtime.evaluate", expression=waiting, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def picture(self) -> Image.Image:
        """What is seen now."""
        shot = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        return Image.open(io.BytesIO(shot)).convert("RGB")

    def press(self, key: str, text: str = "") -> None:
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        self.from_.close()
