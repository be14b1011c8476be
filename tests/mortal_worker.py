"""A worker that dies of some inputs, for tests: at once, as of a lack of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from mmx.cluster.worker import Worker
from mmx.media.given import Done, Job


class MortalWorker(Worker):
    """Of an input `once*` one worker dies, of a `deadly*` all do. Where the file `unable` is, none can load."""

    def open(self) -> dict[str, Any] | Exception:
        folder = Path(os.environ["MMX_CACHE"])
        if (folder / "unable").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open()

    def run(self, job: Job) -> Done | Exception:
        name, died = Path(job.inputs[0].name).name, Path(os.environ["MMX_CACHE"]) / "died"
        if name.startswith("deadly") or (name.startswith("once") and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(job)
