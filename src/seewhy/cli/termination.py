"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do: one line on stderr, complete files or none, exit code 128 + signal number.

By default the process ends inside the signal handler. An exception could be raised anywhere, also in a destructor or while a
library is imported, where it is printed as a traceback or replaced by another error. Bulk jobs have more to do at their end
(child processes, the event log), so for them KeyboardInterrupt is raised: `unwinding`.

`__main__` installs the handlers before it imports anything else, so this module imports almost nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
CLEAR_LINE, SHOW_CURSOR = "\r\x1b[2K", "\x1b[?25h"  # a progress bar hides the cursor
AGAIN = 0.2  # seconds until a signal is sent again whose exception was ignored
PATIENCE = 5.0  # seconds from the first signal in which a second one is ignored, because the command is finishing
LONGEST_END = (
    15.0  # seconds in which a command must finish: Ray waits minutes for a cluster that received the signal too
)


class State:
    """The signal that was received, and what it does at this moment."""

    received: int | None = None  # by `handle`
    arrived: int | None = None  # also while a library has its own handler, as Ray while it starts
    received_at = 0.0
    is_ending = False
    raises = False  # KeyboardInterrupt
    is_deferred = False  # until the end of `uninterrupted`
    finished: int | None = None  # images whose files are complete; None if the command does not count them
    advice = ""  # what to do after an interruption


def install() -> None:
    """Handle the signals. One that the parent process ignores, as `nohup` does, stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def handle(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    is_first = State.received is None
    if is_first:
        State.received = State.arrived = number
        State.received_at = time.monotonic()
    elif (State.raises or State.is_deferred) and time.monotonic() - State.received_at < PATIENCE:
        return
    if is_first and State.is_deferred:
        return
    if is_first and State.raises:
        raise KeyboardInterrupt
    end()


def end() -> None:
    """End the process without running other code. If a second signal interrupts this function, it ends at once."""
    is_repeated, State.is_ending = State.is_ending, True
    remove_unfinished_files()
    if not is_repeated:
        with suppress(OSError):  # the terminal is gone
            os.write(2, f"{reset_terminal()}{describe_interruption()}\n".encode())
        # An image that was explained, but not printed yet. RuntimeError: the signal arrived while stdout was flushed.
        with suppress(OSError, RuntimeError, ValueError, AttributeError):
            sys.stdout.flush()
    os._exit(exit_code())


def end_after_ray(code: int) -> None:
    """End the process after a signal, when its command has finished. Threads of Ray crash if its cluster is gone.

    Without Ray, the process ends as usual, because loky removes its semaphores at the end.
    """
    if State.arrived is None or "ray" not in sys.modules:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def describe_interruption() -> str:
    """Return the line that a signal prints: which results are complete, and the next step."""
    if State.finished is None:
        return f"interrupted; {State.advice}" if State.advice else "interrupted"
    return (
        f"interrupted; {'the results of finished images are complete' if State.finished else 'no image was finished'}"
    )


def count_finished(images: int) -> None:
    """Count images whose files are complete; 0 when the first one starts."""
    State.finished = (State.finished or 0) + images


def exit_code() -> int:
    """Return the exit code after a signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (State.received or State.arrived or signal.SIGINT)


def remove_unfinished_files() -> None:
    """Remove the temporary files that this process is writing."""
    unfinished = getattr(sys.modules.get("seewhy.storage"), "unfinished", ())
    for path in list(unfinished):
        with suppress(OSError):
            os.unlink(path)


def reset_terminal() -> str:
    """Return the codes that remove a progress bar; "" if stderr is not a terminal."""
    with suppress(OSError):
        if os.isatty(2) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
            return CLEAR_LINE + SHOW_CURSOR
    return ""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Handle a signal at the end of the block, which must be short: the files of one image belong together."""
    State.is_deferred = True
    try:
        yield
    finally:
        State.is_deferred = False
        if State.received is not None and not State.raises:
            end()


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise KeyboardInterrupt for a signal that arrives in the block."""
    import threading

    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        """Send the signal again if its exception was raised in a destructor, where Python prints and ignores it."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt) and State.received is not None:
            number, State.received = State.received, None
            threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()
        else:
            before(unraisable)

    State.raises, sys.unraisablehook = True, report
    try:
        with deadline():
            yield
    finally:
        State.raises, sys.unraisablehook = False, before


@contextmanager
def deadline() -> Iterator[None]:
    """End the process if the block still runs `LONGEST_END` seconds after a signal.

    A thread reads the numbers of signals from a pipe, because handlers run only when the main thread returns to Python.
    """
    import threading

    if threading.current_thread() is not threading.main_thread():  # it alone can set a pipe
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    is_over = threading.Event()

    def watch() -> None:
        while number := int.from_bytes(os.read(reading, 1)):
            if number in SIGNALS:
                State.arrived = State.arrived or number
                if not is_over.wait(LONGEST_END):
                    end()
        os.close(reading)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(before)
        os.close(writing)  # ends the thread, after it has read all signals
        thread.join()


def open_standard_streams() -> None:
    """Open standard streams that are closed (`>&-`), so that no file of the command receives their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
