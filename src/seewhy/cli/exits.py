"""How a command speaks to people and ends: what a user can cause is one line and an exit code, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from cyclopts.exceptions import CycloptsError
from rich.console import Console
from rich.markup import escape

from seewhy.errors import SeewhyError

STDERR = Console(stderr=True, highlight=False, emoji=False)


def say(message: str) -> None:
    """A line for people while something happens, to stderr."""
    STDERR.print(escape(message), style="bright_black", soft_wrap=True)


def run_command(command: Callable[[], Any]) -> int:
    """The exit code of a command: 0 done, 1 some pictures failed, 2 wrong usage, 130 interrupted."""
    try:
        result = command()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SeewhyError as error:
        return complain(str(error))
    except CycloptsError as error:
        return complain(" ".join(str(error).split()))
    except KeyboardInterrupt:
        STDERR.print("interrupted; finished pictures are complete", style="red")
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = None
        return 0


def complain(message: str) -> int:
    STDERR.print(f"[red]seewhy:[/] {escape(message)}", soft_wrap=True)
    return 2
