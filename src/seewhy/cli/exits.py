"""How a command ends: user errors print one line and set the exit code; they never print a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from cyclopts.exceptions import CycloptsError

from seewhy.cli import termination
from seewhy.cli.argument_errors import describe_argument_error, describe_option_error
from seewhy.errors import OptionError, SeewhyError, one_line, os_error_reason
from seewhy.terminal import FAINT, make_console, plain

STDIN = "stdin:"  # replaces "-" on the command line, which the parser would parse as an option
EXIT_CODES = (
    "Exit codes: 0 success, 1 some images failed, 2 invalid usage, no images, or results cannot be written. Ended early: 130 "
    "by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 141 because the program that reads the output ended."
)


def print_status(message: str) -> None:
    """Print a message about work in progress to stderr."""
    make_console(stderr=True).print(plain(message), style=FAINT, soft_wrap=True)


def print_error(message: str) -> int:
    """Print one line to stderr and return exit code 2."""
    make_console(stderr=True).print(f"[red]seewhy:[/] {plain(message.replace(STDIN, '-'))}", soft_wrap=True)
    return 2


def run_command(command: Callable[[], object]) -> int:
    """Run a command and return its exit code (`EXIT_CODES`)."""
    try:
        result = command()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        # Any error after a signal is a consequence, as the loss of a Ray cluster that received the signal too.
        if isinstance(error, KeyboardInterrupt) or termination.State.arrived is not None:
            return print_interruption()
        if isinstance(error, BrokenPipeError):  # the reading process, such as head, has closed the pipe
            return 128 + getattr(signal, "SIGPIPE", 13)
        if isinstance(error, Exception) and (message := describe_user_error(error)):
            return print_error(message)
        raise


def print_interruption() -> int:
    """Print one line about a signal to stderr and return the exit code."""
    make_console(stderr=True).print(termination.describe_interruption(), style="red", soft_wrap=True)
    return termination.exit_code()


def describe_user_error(error: Exception) -> str:
    """Return one line for an error that a user can cause; "" for any other."""
    match error:
        case OptionError():
            return describe_option_error(error)
        case SeewhyError():
            return str(error)
        case CycloptsError():
            return describe_argument_error(error)
        case OSError():
            return describe_os_error(error)
        case MemoryError():
            return f"not enough memory ({one_line(error)}). Use smaller images, or fewer layers and methods."
        case RecursionError():
            return "a value is nested too deeply: a file, an option, or the model. Simplify it."
    return ""


def describe_os_error(error: OSError) -> str:
    """Return one line about a file system error: the path and the reason."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return f"{' -> '.join(names)}: {os_error_reason(error)}." if names else f"{os_error_reason(error)}."
