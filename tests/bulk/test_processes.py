"""Bulk jobs as processes: signals, limits of the system, and locks that several writers take at the same time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from seewhy.bulk import part_files
from seewhy.cli import main as cli
from support.bulk_jobs import copies, part_contents, read_events, temporary_files

SEEWHY = [sys.executable, "-m", "seewhy"]
MODEL = ["--model", "support.kill_drill:plain", "--allow-code"]  # loads faster than the embedded network
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def start_process(photos: Path, out: Path, workers: int, **options: Any) -> subprocess.Popen[str]:
    """Start a job over 2000 images (half a minute) in a new session, and wait for its first part file."""
    sizes = ["--part-size", "4", "--batch-size", "4", "--workers", str(workers)]
    command = [*SEEWHY, "bulk", str(copies(photos, 2000)), "--out", str(out), *sizes, *MODEL]
    child = subprocess.Popen(command, text=True, start_new_session=True, env=ENVIRONMENT, **options)
    end = time.monotonic() + 120
    while not part_contents(out) and child.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    return child


def test_ctrl_c_ends_the_job_and_names_the_next_step(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    child = start_process(photos, out, 1, stderr=subprocess.PIPE)
    os.killpg(child.pid, signal.SIGINT)  # a terminal sends it to the entire group
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors and "run the same command again to resume" in errors
    finished = len(part_contents(out))
    assert 0 < finished < 500 and not temporary_files(out)
    events = read_events(out)
    assert (events[-1]["event"], events[-1]["how"]) == ("ended", "interrupted")
    assert sum(event["event"] == "part" for event in events) == finished


def test_full_disk_leaves_no_partial_file(photos: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE raises the error of a full disk without filling one."""
    sizes = ["--part-size", "10", "--batch-size", "5", "--workers", "0"]
    command = [*SEEWHY, "bulk", str(copies(photos, 20)), "--out", str(tmp_path / "run"), *sizes, *MODEL]
    limits: dict[str, Any] = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))}
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, **limits)
    assert ended.returncode == 2, ended.stderr
    assert "the disk is full. Finished parts are kept" in ended.stderr and "Traceback" not in ended.stderr
    assert part_contents(tmp_path / "run") == {} and not temporary_files(tmp_path / "run")
    with pytest.raises(SystemExit, match="0"):  # without the limit
        cli.main(command[3:])
    assert len(part_contents(tmp_path / "run")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_decoder_processes_end_with_their_parent(photos: Path, tmp_path: Path) -> None:
    child = start_process(photos, tmp_path / "run", 2, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    assert len(processes_of_session(child.pid)) >= 3
    child.kill()
    child.wait()
    while processes_of_session(child.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of_session(child.pid) == []


def processes_of_session(leader: int) -> list[int]:
    """Return the living processes of a session."""
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if entry.name.isdigit() and int(fields[3]) == leader and fields[0] != "Z":
            processes.append(int(entry.name))
    return processes


def test_released_locks_of_another_division_block_no_shard(tmp_path: Path) -> None:
    """Shards that start together all check the old locks, and hold each of them for a moment."""
    for shard in range(16):
        with part_files.locked(tmp_path, (shard, 16)):
            pass

    def lock(shard: int) -> int:
        with part_files.locked(tmp_path, (shard, 6)):
            return shard

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lock, range(6))) == list(range(6))


def test_signals_are_postponed_while_a_library_starts_processes() -> None:
    script = """
import os, signal, sys
from seewhy.bulk.child_processes import postponed_signals

signal.signal(signal.SIGTERM, lambda number, frame: print("handled", number))
with postponed_signals():
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(15))  # as ray.init does
    os.kill(os.getpid(), signal.SIGTERM)
    print("started")
os.kill(os.getpid(), signal.SIGTERM)
"""
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, text=True).split() == ["started", "handled", "15", "handled", "15"]
