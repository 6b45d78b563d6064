"""What happens in a job: a line of JSON each in the run's folder, and a bar with rate and time left for people."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from seewhy.bulk.worker import PartResult
from seewhy.terminal import printable

SHOWN = 10  # problems


class Log:
    """Appends events to `log-I-of-N.jsonl`; a line that a crash cut short is the last of its start."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: str, **data: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, "pid": os.getpid(), **data}, ensure_ascii=False, default=str)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(("\n" if torn(self.path) else "") + line + "\n")
        except OSError:
            pass  # a full disk is reported where it stops the work


def torn(path: Path) -> bool:
    """Whether a file ends in the middle of a line."""
    with open(path, "rb") as file:
        return bool(file.seek(0, os.SEEK_END)) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"


class ProgressReporter:
    """Tells people how far a job is: a bar on a terminal, else now and then a line; problems as they come."""

    def __init__(self, console: Console, total: int | None, done: int, quiet: bool) -> None:
        self.console, self.total, self.before, self.quiet = console, total, done, quiet
        self.pictures = self.failed = self.shown = 0
        self.within = 0  # pictures of parts that are not yet finished
        self.start = self.said = time.monotonic()
        self.bar: Progress | None = None

    def __call__(self, part: PartResult) -> None:
        self.pictures += part.pictures
        self.failed += part.failed
        self.within = max(0, self.within - part.pictures)
        if self.quiet:
            return
        for name, reason in part.problems:
            self.shown += 1
            if self.shown <= SHOWN:
                self.console.print(f"[red]{escape(printable(name))}[/]: {escape(printable(reason))}", soft_wrap=True)
            elif self.shown == SHOWN + 1:
                self.console.print(
                    "more that failed are in the rows: seewhy.read_run(RUN).failed", style="bright_black"
                )
        self.moved(0)

    def moved(self, more: int) -> None:
        """So many pictures more are explained, though their part is not finished."""
        self.within += more
        if self.bar is not None:
            self.bar.update(self.task, completed=self.at, words=self.words())
        elif self.quiet:
            return
        elif time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            self.console.print(self.words(), style="bright_black", soft_wrap=True)

    @property
    def at(self) -> int:
        return self.before + self.pictures + self.within

    @property
    def rate(self) -> float:
        return (self.pictures + self.within) / max(time.monotonic() - self.start, 1e-9)

    def words(self) -> str:
        """How far it is, how fast it goes, how long it will take.

        >>> ProgressReporter(Console(), 100, 0, quiet=True).words()
        '0 of 100 pictures'
        """
        at = self.at
        text = f"{at:,} of {self.total:,} pictures" if self.total is not None else f"{at:,} pictures"
        if self.pictures + self.within:
            text += f", {self.rate:,.1f} a second"
            if self.total is not None and self.total > at:
                text += f", {span((self.total - at) / self.rate)} left"
        return text

    @contextmanager
    def running(self) -> Iterator[None]:
        if self.quiet or not self.console.is_terminal:
            yield
            return
        columns = (BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as self.bar:
            self.task = self.bar.add_task("", total=self.total, completed=self.before, words=self.words())
            yield


def span(seconds: float) -> str:
    """A time in the two units that matter.

    >>> span(7), span(312), span(7300), span(200000)
    ('7 s', '5 min 12 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, name, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {small}"
    return f"{whole} s"
