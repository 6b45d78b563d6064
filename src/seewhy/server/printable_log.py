"""Log messages and tracebacks without control characters: their text may come from requests and image files."""

from __future__ import annotations

import logging
import traceback

from seewhy.terminal.escaping import printable_lines


class PrintableFormatter(logging.Formatter):
    """A formatter that escapes control characters, except for the ends of lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message and the traceback of a record."""
        return printable_lines(super().format(record))


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an error as printable text."""
    return printable_lines("".join(traceback.format_exception(error)))
