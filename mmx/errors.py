"""The error tree. Each error is one line for the user, a hint, and the exit code of the process."""

from __future__ import annotations


class MmxError(Exception):
    """Base of every error that a user can cause or meet. `exit_code` 1 is reserved for our own bugs."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, object]:
        """The error as `--json` prints it."""
        return {"error": type(self).__name__, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


class UsageError(MmxError):
    """The command line asks for something that makes no sense, or a path does not exist."""

    exit_code = 2


class InputError(MmxError):
    """An input file is unreadable, unsafe, empty or holds nothing usable."""

    exit_code = 3


class SilenceError(InputError):
    """A sound is digital silence: every sample has the same value."""


class NotAPictureError(InputError):
    """A file's bytes are those of no picture format, so that it may be something else."""


class DamagedError(InputError):
    """Of a picture, or of a sound where that is asked for, a part is missing or can't be decoded."""


class DeadlyError(InputError):
    """Every process that took this input died."""


class OutputError(MmxError):
    """An output could not be written. Nothing half-written is left behind."""

    exit_code = 2


class DiskError(OutputError):
    """No output can be written any more: the disk is full, or may only be read."""


class ModelError(MmxError):
    """A model is missing, corrupt, or does not fit the other models it was asked to work with."""

    exit_code = 4


class NetworkError(MmxError):
    """Something would have to be fetched, and we are offline or the network failed."""

    exit_code = 5


class PartialFailure(MmxError):
    """Some items of a batch failed; the others were written."""

    exit_code = 6


class NonFiniteError(MmxError):
    """NaN or infinity in a loss, in weights or in an output."""

    exit_code = 7


class LastBitsError(MmxError):
    """What was made again differs from what was made in the last bits only, as another processor computes them."""

    exit_code = 8


class Interrupted(MmxError):
    """The user stopped a run, whose state was saved, or a batch, of which something is done."""

    exit_code = 130
