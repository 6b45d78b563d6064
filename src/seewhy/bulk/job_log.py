"""Progress of a job: an event log (JSON lines in the run folder) and a progress bar with rate and remaining time."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from seewhy.bulk.worker import PartResult
from seewhy.storage import UNENCODABLE, open_regular
from seewhy.terminal import plain

LOG_START = b'{"time": "'
MAX_PRINTED = 10  # failed images
LINE_INTERVAL = 10.0  # seconds between lines of progress where there is no terminal


class EventLog:
    """Appends events to `log-I-of-N.jsonl`. A line that a crash truncated is terminated before the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: str, **fields: object) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "event": event, "pid": os.getpid(), **fields}
        line = json.dumps(record, ensure_ascii=False, default=str)
        try:
            with open(self.path, "a", encoding="utf-8", errors=UNENCODABLE) as file:
                file.write(("\n" if ends_within_line(self.path) else "") + line + "\n")
        except OSError:
            pass  # a full disk is reported by the part writer


def is_own_log(path: Path) -> bool:
    """Return True if a file starts like an event log. A job that was killed may leave an empty one."""
    try:
        with open_regular(path) as file:
            return not path.is_symlink() and file.read(len(LOG_START)) in (b"", LOG_START)
    except OSError:
        return False


def ends_within_line(path: Path) -> bool:
    """Return True if the last line of a file is not terminated."""
    with open(path, "rb") as file:
        return bool(file.seek(0, os.SEEK_END)) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"


class ProgressReporter:
    """Prints progress: a bar on a terminal, otherwise a line every ten seconds; and the first failed images."""

    def __init__(self, console: Console, total: int | None, finished_before: int, quiet: bool) -> None:
        self.console, self.total, self.finished_before, self.quiet = console, total, finished_before, quiet
        self.images = self.failed = self.printed = 0
        self.in_progress = 0  # images of unfinished parts
        self.start = self.last_line = time.monotonic()
        self.bar: Progress | None = None

    def add(self, part: PartResult) -> None:
        """Count a finished part and print its failed images."""
        self.images += part.images
        self.failed += part.failed
        self.in_progress = max(0, self.in_progress - part.images)
        if self.quiet:
            return
        for name, reason in part.problems:
            self.printed += 1
            if self.printed <= MAX_PRINTED:
                self.console.print(f"[red]{plain(name)}[/]: {plain(reason)}", soft_wrap=True)
            elif self.printed == MAX_PRINTED + 1:
                self.console.print("more images failed; the error column of the run lists them", style="bright_black")
        self.advance(0)

    def advance(self, images: int) -> None:
        """Count images of an unfinished part."""
        self.in_progress += images
        if self.bar is not None:
            self.bar.update(self.task, completed=self.position, text=self.text())
        elif not self.quiet and time.monotonic() - self.last_line > LINE_INTERVAL:
            self.last_line = time.monotonic()
            self.console.print(self.text(), style="bright_black", soft_wrap=True)

    @property
    def position(self) -> int:
        return self.finished_before + self.images + self.in_progress

    @property
    def rate(self) -> float:
        return (self.images + self.in_progress) / max(time.monotonic() - self.start, 1e-9)

    def text(self) -> str:
        """Return the position, the rate and the remaining time.

        >>> ProgressReporter(Console(), 100, 0, quiet=True).text()
        '0 of 100 images'
        """
        position = self.position
        text = f"{position:,} of {self.total:,} images" if self.total is not None else f"{position:,} images"
        if self.images + self.in_progress:
            text += f", {self.rate:,.1f} per second"
            if self.total is not None and self.total > position:
                text += f", {format_duration((self.total - position) / self.rate)} left"
        return text

    @contextmanager
    def running(self) -> Iterator[None]:
        if self.quiet or not self.console.is_terminal:
            yield
            return
        columns = (BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as self.bar:
            self.task = self.bar.add_task("", total=self.total, completed=self.finished_before, text=self.text())
            yield


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> format_duration(7), format_duration(312), format_duration(7300), format_duration(200000)
    ('7 s', '5 min 12 s', '2 h 1 min', '2 d 7 h')
    """
    rounded = round(seconds)
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if rounded >= unit:
            return f"{rounded // unit} {name} {rounded % unit // smaller} {smaller_name}"
    return f"{rounded} s"
