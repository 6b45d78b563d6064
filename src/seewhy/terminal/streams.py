"""stdout and stderr for everything that prints in this process: seewhy, other libraries, warnings and tracebacks.

`escaped_streams` replaces `sys.stdout` and `sys.stderr`. Control characters are escaped in all output, also of other libraries;
only the consoles of seewhy (`SafeConsole`) write styles, to the stream behind it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from seewhy.errors import UsageError
from seewhy.terminal.escaping import READABLE, printable_lines


class OutputStream:
    """stdout or stderr. An error in writing has one line that names the stream; on stderr it is ignored.

    BrokenPipeError of stdout is raised unchanged: the reading process, such as `head`, has ended.
    """

    def __init__(self, stream: TextIO | None, name: str, *, is_required: bool) -> None:
        self.stream, self.name, self.is_required = stream, name, is_required
        self.is_broken = False

    def write(self, text: str) -> int:
        if self.is_broken:
            return len(text)
        if self.stream is None and text:
            self.report("it is closed")
        try:
            if self.stream is not None:
                self.stream.write(text)
        except (OSError, ValueError) as error:
            self.report(error)
        return len(text)

    def flush(self) -> None:
        if self.is_broken:
            return
        try:
            if self.stream is not None:
                self.stream.flush()
        except (OSError, ValueError) as error:
            self.report(error)

    def report(self, error: Exception | str) -> None:
        """Raise what a failed write means, once. The stream is silent from then on."""
        self.is_broken = True
        self.discard_pending()
        if not self.is_required:
            return
        if isinstance(error, BrokenPipeError):
            raise error
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{self.name} cannot be written ({reason.lower()}); the printed results are incomplete."
        ) from None

    def discard_pending(self) -> None:
        """Send the rest of the buffer to the null device: otherwise Python prints an error when it exits."""
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())  # type: ignore[union-attr]
            os.close(null)

    def isatty(self) -> bool:
        with suppress(ValueError):
            return self.stream is not None and self.stream.isatty()
        return False

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        if self.stream is None:
            raise AttributeError(name)
        return getattr(self.stream, name)


class EscapedStream(OutputStream):
    """A stream that escapes control characters. It is never a terminal: libraries print plain lines."""

    escapes_control_characters = True

    def __init__(self, target: OutputStream) -> None:
        super().__init__(target.stream, target.name, is_required=target.is_required)
        self.target = target

    def write(self, text: str) -> int:
        # A carriage return would overwrite the line; some libraries print progress with it.
        self.target.write(printable_lines(text.replace("\r\n", "\n").replace("\r", "\n")))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.target.flush()

    def isatty(self) -> bool:
        return False


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` inside the block by streams that escape control characters."""
    before = sys.stdout, sys.stderr
    handlers = [(stream, stream.errors) for stream in before if isinstance(stream, io.TextIOWrapper)]
    replace_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream, errors in handlers:
            with suppress(OSError, ValueError):  # reconfigure flushes, and a stream may be closed or broken
                stream.reconfigure(errors=errors)


def replace_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` for the rest of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)
    sys.stdout = wrap(sys.stdout, "standard output", is_required=True)
    sys.stderr = wrap(sys.stderr, "standard error", is_required=False)


def wrap(stream: Any, name: str, *, is_required: bool) -> TextIO:
    if isinstance(stream, EscapedStream):
        return cast(TextIO, stream)
    return cast(TextIO, EscapedStream(OutputStream(stream, name, is_required=is_required)))


def styled_stream(stream: Any) -> Any:
    """Return the stream that a console writes styles to: the one behind an escaped stream."""
    return stream.target if isinstance(stream, EscapedStream) else stream
