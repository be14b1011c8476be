"""The standard streams as shells leave them: closed, on a full disk, in an encoding that lacks letters.

Whoever writes to stdout or reads stdin meets an error of ours where it can't be done. What is said on stderr is lost
where nobody can hear it.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from mmx.errors import DiskError, UsageError

ESCAPE = "backslashreplace"  # of letters that the terminal's encoding lacks: a name is no reason to fail


class _Raw(io.FileIO):
    """A standard stream's file. closed_before: it was closed when we were started."""

    def __init__(self, number: int, mode: str, *, closed_before: bool) -> None:
        super().__init__(number, mode, closefd=False)
        self.closed_before = closed_before

    def isatty(self) -> bool:
        """As of every file. Raises UsageError where the stream is closed: that is asked before any work."""
        if self.closed_before:
            raise self._closed()
        return super().isatty()

    def _closed(self) -> UsageError:
        return UsageError(f"{('stdin', 'stdout', 'stderr')[self.fileno()]} is closed", hint="give a file")


class _Stdin(_Raw):
    def readinto(self, buffer: Any) -> int | None:
        if self.closed_before:
            raise self._closed()
        return super().readinto(buffer)

    def readall(self) -> bytes:
        if self.closed_before:
            raise self._closed()
        return super().readall()


class _Stdout(_Raw):
    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self.closed_before:
                raise self._closed() from None
            raise DiskError(f"stdout: {error.strerror}", hint="give -o FILE, or make room") from None


class _Stderr(_Raw):
    def isatty(self) -> bool:
        return not self.closed_before and super().isatty()

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def settle_streams() -> None:
    """Replace the process's own streams by such; those that a test or another program put there stay."""
    first = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    own = [stream is its_own for stream, its_own in zip((sys.stdin, sys.stdout, sys.stderr), first, strict=True)]
    shut = [mine and _occupy(number) for number, mine in enumerate(own)]
    if shut[0]:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Stdin(0, "rb", closed_before=True)))
    if own[1]:
        sys.stdout = _writer(_Stdout(1, "wb", closed_before=shut[1]), sys.stdout)
    if own[2]:
        sys.stderr = _writer(_Stderr(2, "wb", closed_before=shut[2]), sys.stderr, line_buffering=True)


def give_up_stdout() -> None:
    """What was not written yet goes nowhere: the interpreter would try once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _occupy(number: int) -> bool:
    """Whether a descriptor is closed; it is then taken, so that no file that is opened later becomes that stream."""
    try:
        os.fstat(number)
    except OSError:
        other_way = os.O_WRONLY if number == 0 else os.O_RDONLY
        os.open(os.devnull, other_way)
        return True
    return False


def _writer(raw: _Raw, like: io.TextIOWrapper | None, *, line_buffering: bool = False) -> io.TextIOWrapper:
    encoding = "utf8" if like is None else like.encoding
    lines = line_buffering or (like is not None and like.line_buffering)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, ESCAPE, line_buffering=lines)
