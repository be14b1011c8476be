"""A worker that dies of some inputs, for tests: at once, as of a lack of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from mmx.cluster.worker import Worker
from mmx.media.given import Done, Job
from mmx.spaces.question import Answer, Question


class MortalWorker(Worker):
    """Of an input `once*` one worker dies, of a `deadly*` all do. Where the file `unable` is, none can load."""

    def open(self) -> dict[str, Any] | Exception:
        folder = Path(os.environ["MMX_CACHE"])
        if (folder / "unable").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open()

    def run(self, work: Job | Question) -> Done | Answer | Exception:
        names = [Path(own.name).name for own in (work.terms if isinstance(work, Question) else work.inputs)]
        died = Path(os.environ["MMX_CACHE"]) / "died"
        once = any(name.startswith("once") for name in names) and not died.exists()
        if once or any(name.startswith("deadly") for name in names):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(work)
