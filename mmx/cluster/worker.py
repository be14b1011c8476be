"""What computes on a machine of a cluster: a process of Ray's that keeps a command's models loaded."""

from __future__ import annotations

import os
import pickle
from typing import Any

import mmx
from mmx.media.given import Done, Job
from mmx.serving.wire import Asked
from mmx.spaces.question import Answer, Question


class Worker:
    """An actor. It hands back what goes wrong and raises nothing: Ray would wrap it."""

    def __init__(self, asked: Asked, offline: bool) -> None:
        self.asked = asked
        if offline:  # heeded by the libraries that are imported from here on
            os.environ["HF_HUB_OFFLINE"] = "1"

    def open(self) -> dict[str, Any] | Exception:
        """Load the models: what `Shelf.open` says of them, and which mmx this is."""
        try:
            from mmx.serving.shelf import Shelf

            self.shelf = Shelf(2)  # a space and a language model
            return {"version": mmx.__version__, "host": os.uname().nodename, **self.shelf.open(self.asked)}
        except Exception as error:
            return portable(error)

    def run(self, work: Job | Question) -> Done | Answer | Exception:
        """A job's result, or a question's answer, by the function that makes it on one machine."""
        try:
            return self.shelf.run(self.asked, work)
        except Exception as error:
            return portable(error)


def portable(error: Exception) -> Exception:
    """An error that another process can read: itself, or what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error.with_traceback(None)
