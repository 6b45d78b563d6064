"""Signals: one line, exit code 128 + signal number, no temporary file, no traceback, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import COFFEE
from support.signal_drill import restore_signals, signal_case

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from seewhy.cli import termination

termination.install()
first = getattr(signal, sys.argv[1])
"""


def run_script(code: str, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT + code, name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=restore_signals)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_removes_temporary_files(tmp_path: Path, name: str, code: int) -> None:
    """A destructor is the worst moment: Python prints and ignores an exception there."""
    script = """
from seewhy import storage

class Ends:
    def __del__(self):
        os.kill(os.getpid(), first)

def content(file):
    file.write(b"half")
    Ends()
    file.write(b"other half")

storage.write_file(Path(sys.argv[2]), content)
print("not reached")
"""
    ended = run_script(script, name, str(tmp_path / "file.bin"))
    assert ended.returncode == code and ended.stdout == "" and not list(tmp_path.iterdir())
    assert ended.stderr == "interrupted\n"


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ("pass", "interrupted"),
        ("termination.count_finished(0)", "interrupted; no image was finished"),
        ("termination.count_finished(2)", "interrupted; the results of finished images are complete"),
        ("termination.State.advice = 'run it again'", "interrupted; run it again"),
    ],
)
def test_the_line_states_what_is_complete(before: str, line: str) -> None:
    ended = run_script(f"{before}\nos.kill(os.getpid(), first)\ntime.sleep(5)", "SIGINT")
    assert ended.returncode == 130 and ended.stderr == f"{line}\n"


def test_files_of_one_image_are_written_together() -> None:
    script = """
with termination.uninterrupted():
    os.kill(os.getpid(), first)
    print("files written", flush=True)
print("not reached")
"""
    ended = run_script(script, "SIGTERM")
    assert (ended.returncode, ended.stdout) == (143, "files written\n") and len(ended.stderr.splitlines()) == 1


def test_a_second_signal_does_not_interrupt_the_end() -> None:
    """Bulk jobs unwind: a destructor that swallows the exception does not swallow the signal."""
    script = """
class Ends:
    def __del__(self):
        os.kill(os.getpid(), first)

with termination.unwinding():
    try:
        Ends()
        time.sleep(5)
        print("not reached")
    finally:
        os.kill(os.getpid(), first)
        print("cleaned", flush=True)
        sys.stderr.flush()
        os._exit(termination.exit_code())
"""
    ended = run_script(script, "SIGTERM")
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "cleaned\n", "")


def test_a_command_that_does_not_end_after_a_signal_is_ended() -> None:
    script = """
termination.LONGEST_END = 0.5
with termination.unwinding():
    try:
        os.kill(os.getpid(), first)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)  # as Ray, which waits for a cluster that is gone
"""
    ended = run_script(script, "SIGTERM")
    assert (ended.returncode, ended.stderr) == (143, "interrupted\n")


@pytest.mark.parametrize("error", ["SystemExit(15)", "RuntimeError('the cluster is gone')", "UsageError('no cluster')"])
def test_an_error_after_a_signal_is_an_interruption(error: str) -> None:
    script = f"""
from seewhy.cli.exits import run_command
from seewhy.errors import UsageError

def handle(number, frame):
    raise {error}

def command():
    with termination.unwinding():
        signal.signal(first, handle)  # as Ray does while it starts
        os.kill(os.getpid(), first)
        time.sleep(60)

sys.exit(run_command(command))
"""
    ended = run_script(script, "SIGTERM")
    assert (ended.returncode, ended.stderr) == (143, "interrupted\n")


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    """`nohup` and background jobs of scripts start their processes like this."""
    command = [sys.executable, "-c", SCRIPT + "os.kill(os.getpid(), first)\nprint('alive')", "SIGHUP"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alive\n", "")


def test_closed_streams_are_opened() -> None:
    """Otherwise the first file that is opened has number 1, and everything that is printed goes into it."""
    script = "termination.open_standard_streams()\nos._exit(os.open('/dev/null', os.O_RDONLY))"
    command = [sys.executable, "-c", SCRIPT + script, "SIGINT"]
    ended = subprocess.run(command, check=False, preexec_fn=lambda: [os.close(number) for number in range(3)])
    assert ended.returncode >= 3


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGTERM, 0.3), (signal.SIGINT, 1.0)])
def test_early_signals_print_no_traceback(tmp_path: Path, number: signal.Signals, delay: float) -> None:
    """While the commands, PyTorch and the model are imported."""
    result = signal_case([COFFEE, "--out", str(tmp_path / "cam")], number, delay, tmp_path)
    assert result["problems"] == []
    assert not (tmp_path / "cam").exists()
