"""How a command ends: user errors print one line and set the exit code; they never print a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cyclopts.exceptions import CycloptsError, UnknownOptionError
from rich.console import Console
from rich.markup import escape

from seewhy.errors import SeewhyError, one_line
from seewhy.terminal import printable

RENAMED = {"--site": "--read-at", "--question": "--target"}

STDERR = Console(stderr=True, highlight=False, emoji=False)


def print_status(message: str) -> None:
    """Print a message about work in progress to stderr, with control characters escaped."""
    STDERR.print(escape(printable(message)), style="bright_black", soft_wrap=True)


def print_error(message: str) -> int:
    """Print one line to stderr, with control characters escaped, and return exit code 2."""
    STDERR.print(f"[red]seewhy:[/] {escape(printable(message))}", soft_wrap=True)
    return 2


def renamed_option(error: UnknownOptionError) -> str:
    """Return an error message for an option that was renamed, or ""."""
    name = (error.token.keyword or error.token.value).partition("=")[0]
    return f"Unknown option: {name}. It is now {RENAMED[name]}." if name in RENAMED else ""


def run_command(command: Callable[[], object]) -> int:
    """Run a command and return its exit code: 0 success, 1 some images failed, 2 invalid usage, 130 interrupted."""
    try:
        result = command()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SeewhyError as error:
        return print_error(str(error))
    except UnknownOptionError as error:
        return print_error(renamed_option(error) or one_line(error))
    except CycloptsError as error:
        return print_error(one_line(error))
    except KeyboardInterrupt:
        STDERR.print("interrupted; the results of finished images are complete", style="red")
        return 130
    except BrokenPipeError:  # the reading process, such as head, has closed the pipe
        sys.stdout = None
        return 0
