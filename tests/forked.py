"""A Python that starts at once: its processes are forked off one that has imported the libraries.

Importing torch, transformers and diffusers takes seconds, and tests of pipes, launchers and kills start dozens of
processes. The parent imports and computes nothing, so that a child is what a new interpreter would be after its
imports: arguments, environment, folder and streams are those of its client, which passes signals on, ends as the child
ends, and takes it along when it is killed. Only what libraries read from the environment while they are imported is
the parent's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress

STREAMS = (0, 1, 2)


def ask(place: str, words: list[str]) -> None:
    """The client: has `python WORDS` run, and ends as that does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place)
    what = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(what).to_bytes(4, "little")], list(STREAMS))
    connection.sendall(what)
    child = int.from_bytes(connection.recv(4), "little")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: os.kill(child, got))
    code = os.waitstatus_to_exitcode(int.from_bytes(connection.recv(4), "little"))
    if code < 0:
        with suppress(OSError):  # of SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def keep(connection: socket.socket, child: int) -> None:
    """Waits for a child, says how it ended, and ends it when its client is gone."""
    from select import select

    connection.sendall(child.to_bytes(4, "little"))
    if connection in select([connection, os.pidfd_open(child)], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    with suppress(OSError):
        connection.sendall(os.waitpid(child, 0)[1].to_bytes(4, "little"))
    os._exit(0)


def become(told: dict, streams: list[int]) -> list[str]:
    """A child takes on what its client is. → the words that it is to run."""
    import torch

    for stream, given in zip(STREAMS, streams, strict=True):
        os.dup2(given, stream)
        os.close(given)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    return told["words"]


def serve(place: str) -> list[str]:
    """The parent forks whenever it is asked, and ends with its stdin. → in children only: what they are to run."""
    from select import select

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen(64)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who keep children need no waiting for
    while listener in select([listener, 0], [], [])[0]:
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            size, streams = socket.recv_fds(connection, 4, len(STREAMS))[:2]
            told = json.loads(connection.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL))
            child = os.fork()
            if child:
                keep(connection, child)
            connection.close()
            return become(told, streams)
        connection.close()
    sys.exit()


def import_all() -> None:
    """What commands import when asked for something; not onnxruntime, which starts a thread that no child has."""
    import importlib
    import pkgutil

    import mmx

    found = [module.name for module in pkgutil.walk_packages(mmx.__path__, "mmx.")]
    found = [name for name in found if not name.endswith("__main__")]
    libraries = ["cv2", "platformdirs", "torch.distributed.launcher.api", "typer._adapters"]
    for name in (*found, *libraries):
        with suppress(ImportError):  # of an extra that is not here
            importlib.import_module(name)
    import diffusers
    import transformers
    from PIL import Image

    Image.init()
    for library, name in ((diffusers, "VQModel"), (diffusers, "UNet2DConditionModel"), (transformers, "ResNetModel")):
        getattr(library, name)


def run(words: list[str]) -> None:
    """As an interpreter runs `-c SCRIPT`, `-m MODULE` or a file."""
    import runpy

    kind, *rest = words
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    if what == "ask":
        ask(place, rest)
    sys.path[0] = os.getcwd()  # in place of this file's folder
    import_all()
    run(serve(place))
