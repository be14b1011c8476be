"""`mmx`: the commands, and what happens to errors."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from mmx.cli.plain import read_plain
from mmx.cli.streams import give_up_stdout, settle_streams
from mmx.cli.talk import report
from mmx.errors import MmxError
from mmx.faults import unexpected


def _leave(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        give_up_stdout()
    except MmxError as error:
        give_up_stdout()
        if not code:
            report(error, as_json=False)
            code = error.exit_code
    sys.exit(code)


def _told(error: MmxError, *, as_json: bool) -> int:
    """The exit code of an error, which the user is told of in any case."""
    try:
        report(error, as_json=as_json)
    except MmxError:  # stdout, where it would be said as JSON, can't be written to
        report(error, as_json=False)
    return error.exit_code


def _terminate(*_: object) -> NoReturn:
    """A polite kill is a Ctrl-C: what was begun is cleaned up or saved."""
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    """Do what a line asks for → the exit code. Raises what commands and the parser raise."""
    command = read_plain(arguments)
    if command is not None:
        command()
        return 0
    from mmx.cli.group import app

    # in standalone mode click would end the process with its own code on Ctrl-C
    code = app(arguments, prog_name="mmx", standalone_mode=False, obj={"line": arguments})
    return code if isinstance(code, int) else 0


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line. Every outcome has its exit code; no traceback unless MMX_DEBUG=1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    debug = os.environ.get("MMX_DEBUG") == "1"
    signal.signal(signal.SIGTERM, _terminate)
    settle_streams()
    try:
        _leave(_run(arguments))
    except MmxError as error:
        if debug:
            raise
        _leave(_told(error, as_json=as_json))
    except (KeyboardInterrupt, EOFError):
        print("mmx: interrupted", file=sys.stderr)
        _leave(130)
    except SystemExit:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # typer's, where the reader of stdout went away
            _leave(0)
        raise
    except BrokenPipeError:
        _leave(0)
    except Exception as error:
        if debug:
            raise
        _leave(_other(error, as_json=as_json))


def _other(error: Exception, *, as_json: bool) -> int:
    """Usage errors of the command-line parser, and bugs."""
    kind = type(error).__name__
    if kind == "Abort":
        print("mmx: interrupted", file=sys.stderr)
        return 130
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        if kind == "NoArgsIsHelpError":
            print(error.format_message())
            return 0
        wrong = MmxError(error.format_message(), hint="mmx COMMAND --help lists what there is")
        wrong.exit_code = 2
        return _told(wrong, as_json=as_json)
    return _told(unexpected(error), as_json=as_json)
