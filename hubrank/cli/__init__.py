"""The command line. Commands are thin: each parses, calls the library, and hands the result to a report.

This is the one place that prints, and the one that catches everything: what comes up from below leaves as one line on
stderr and an exit code (see :mod:`hubrank.errors`).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from hubrank.cli.app import app
from hubrank.cli.progress import Interrupted
from hubrank.errors import HubrankError

__all__ = ["app", "main"]

_INTERRUPTED = 130
_ISSUES = "https://github.com/hubrank/hubrank/issues"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown with question marks; it is no reason to stop.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    code = run(given)
    _flush()
    if "torch" in sys.modules or code == _INTERRUPTED:
        # Everything is written and closed; taking torch and transformers apart object by object takes most of a second, and
        # whoever pressed the interrupt key has waited enough.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    verbose = any(word in ("-v", "--verbose") for word in arguments)
    try:
        result = app(args=list(arguments), prog_name="hubrank", standalone_mode=False)
    except HubrankError as error:
        return _complain(str(error), error.exit_code, verbose=verbose)
    except Interrupted as interrupt:
        return _complain(f"interrupted; {interrupt}", _INTERRUPTED, verbose=False)
    except KeyboardInterrupt:
        result = _INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 -- the one place that turns anything into a message
        return _unexpected(error, verbose=verbose)
    if result == _INTERRUPTED:  # which is what typer makes of the interrupt key
        return _complain("interrupted; what was done is kept", _INTERRUPTED, verbose=False)
    return result if isinstance(result, int) else 0


def _unexpected(error: Exception, *, verbose: bool) -> int:
    # The parser's own complaints, whichever module it keeps their classes in.
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error}\n")
        return 2
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hubrank"
        return _complain(f"{error.format_message()} See `{command} --help`.", 2, verbose=False)
    if type(error).__name__ == "Abort":
        return _complain("stopped; nothing was changed", 1, verbose=False)
    what = " ".join(str(error).split())[:200]
    where = f"please report it at {_ISSUES} with what the same command prints under -v"
    return _complain(f"a bug of ours: {type(error).__name__}: {what}; {where}", HubrankError.exit_code, verbose=verbose)


def _complain(message: str, code: int, *, verbose: bool) -> int:
    if verbose:
        import traceback

        traceback.print_exc()
    line = " ".join(message.split())
    # Nothing that came in from a file or a hub may act on the terminal.
    inert = "".join(c if c.isprintable() else "?" for c in line)
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(f"hubrank: {inert}\n".encode(encoding, "replace").decode(encoding))
    return code


def _flush() -> None:
    sys.stderr.flush()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe has gone; python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
