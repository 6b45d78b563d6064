"""The console of seewhy: a rich console whose text cannot contain control characters."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleDimensions
from rich.segment import Segment
from rich.text import Text

from seewhy.terminal.escaping import printable_lines
from seewhy.terminal.streams import styled_stream

FILE_WIDTH = 160  # columns where there is no terminal: wide enough for most tables
MIN_WIDTH, MAX_WIDTH = 20, 1000
SIZE_VARIABLES = ("COLUMNS", "LINES")  # rich fails on some values, such as "²"


class SafeConsole(Console):
    """A console that prints text unchanged, except for control characters: they are escaped before layout and when written.

    Escape sequences in its output come from rich's styles only.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in SIZE_VARIABLES}
        super().__init__(stderr=stderr, highlight=False, emoji=False, _environ=environment)
        if not self.is_terminal:
            self.width = FILE_WIDTH
        elif (columns := os.environ.get("COLUMNS", "")).isascii() and columns.isdigit() and int(columns[:9]) > 0:
            self.width = int(columns[:9])

    @property
    def size(self) -> ConsoleDimensions:
        """The size of the terminal, within limits: no table fits into 5 columns, and a line of a million is not useful."""
        size = super().size
        return ConsoleDimensions(min(max(size.width, MIN_WIDTH), MAX_WIDTH), size.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    @property
    def file(self) -> IO[str]:
        """The stream that styles are written to."""
        file: IO[str] = styled_stream(super().file)
        return file

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    @property
    def encoding(self) -> str:
        """The encoding of the stream: rich draws tables in ASCII if it is not a Unicode encoding."""
        return str(getattr(self.file, "encoding", None) or "utf-8").lower()

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string, which may contain markup, to text without control characters."""
        return super().render_str(printable_lines(text), **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            part if part.control else Segment(printable_lines(part.text), part.style) for part in buffer
        )

    def on_broken_pipe(self) -> None:
        """Raise the current BrokenPipeError, which ends the command, instead of exiting here."""
        raise


def make_console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr. Without a terminal it is wide enough for every table."""
    return SafeConsole(stderr=stderr)


def can_preview(console: Console) -> bool:
    """Return True for a terminal with 24-bit color, in which half blocks can show an image."""
    return console.is_terminal and console.color_system == "truecolor" and console.encoding.startswith("utf")
