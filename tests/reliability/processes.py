"""Run one case in a separate process, and find out whether it ended as a command should."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# At the start of a line: a name of a file may contain it, too.
TRACEBACK = re.compile(r"^(Traceback \(most recent call last\)|Fatal Python error|Exception ignored in)", re.MULTILINE)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SOURCE = str(Path(__file__).parents[2] / "src")


@dataclass(frozen=True)
class Observed:
    """How a process ended. `code` is None if it was killed, after its time or by a signal; `megabytes` is its peak memory."""

    code: int | None
    out: str
    err: str
    seconds: float
    megabytes: float
    signal: int = 0
    is_late: bool = False

    @property
    def message(self) -> str:
        """The last line of stderr, which states the error, or the last line of stdout."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else ""

    def problems(self, codes: Sequence[int], *, lines: int | None = 1) -> list[str]:
        """Return what is wrong with this end. `lines` is the largest number of lines of an error message; None: any."""
        found = []
        if self.is_late:
            found.append(f"hang: killed after {self.seconds:.0f} s")
        elif self.signal:
            found.append(f"killed by signal {self.signal}")
        elif self.code not in codes:
            found.append(f"exit code {self.code}")
        text = self.out + self.err
        if TRACEBACK.search(text):
            found.append(f"traceback: {self.message}")
        if match := CONTROLS.search(text):
            found.append(f"control character {match[0]!r} in the output")
        if lines is not None and self.code == 2 and (count := len(error_lines(self.err))) > lines:
            found.append(f"{count} lines for one error")
        if lines is not None and self.code == 2 and not error_lines(self.err):
            found.append("no message")
        return found


def error_lines(text: str) -> list[str]:
    """Return the lines of stderr from the error message on: notes may precede it."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("seewhy: ")), len(lines))
    return lines[start:]


def run_forked(
    action: Callable[[], int | None], folder: Path, *, seconds: float = 60.0, megabytes: int = 3000
) -> Observed:
    """Run `action` in a fork of this process, in `folder`. It may allocate `megabytes` more than this process has.

    Modules and models that are loaded already cost nothing in the fork. The parent must not have run a backward pass, because
    PyTorch does not support autograd after that in a fork.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            run_child(action, folder, out.fileno(), err.fileno(), megabytes)
        return observe(child, start, seconds, out, err)


def run_child(action: Callable[[], int | None], folder: Path, out: int, err: int, megabytes: int) -> None:
    """Run the action and end the process with its exit code."""
    code = 1
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(folder)
        limit = address_space() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        code = action() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code)


def address_space() -> int:
    """Return the size of this process's address space in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def wait(child: int, deadline: float) -> tuple[int, resource.struct_rusage, bool]:
    """Return the status and the resources of a child that has ended. After the deadline it is killed with its children."""
    is_late = False
    while True:
        done, status, usage = os.wait4(child, 0 if is_late else os.WNOHANG)
        if done:
            return status, usage, is_late
        if time.monotonic() > deadline:
            is_late = True
            os.killpg(child, signal.SIGKILL)
        else:
            time.sleep(0.002)


def run_started(
    arguments: Sequence[str | bytes],
    folder: Path,
    *,
    seconds: float = 120.0,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    shell: str = "",
) -> Observed:
    """Start `python -m seewhy ARGUMENTS` in `folder`. `shell` is a command in which "$@" runs it, such as `"$@" | head -1`."""
    command: list[str | bytes] = [sys.executable, "-m", "seewhy", *arguments]
    if shell:
        command = ["bash", "-c", shell, "bash", *command]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "COLUMNS": "200", **(env or {})}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=given, stdout=out, stderr=err, start_new_session=True
        )
        return observe(process.pid, start, seconds, out, err)


def observe(child: int, start: float, seconds: float, out: IO[bytes], err: IO[bytes]) -> Observed:
    """Wait for a child that writes to two files, and return how it ended."""
    status, usage, is_late = wait(child, start + seconds)
    return Observed(
        os.WEXITSTATUS(status) if os.WIFEXITED(status) else None, read(out), read(err), time.monotonic() - start,
        usage.ru_maxrss / 1024, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, is_late,
    )  # fmt: skip


def read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
