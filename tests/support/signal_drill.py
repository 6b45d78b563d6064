"""Send SIGINT, SIGTERM or SIGHUP to a command after a delay, and check how it ends.

    .venv/bin/python tests/support/signal_drill.py            # 60 cases: every command, every signal, delays up to 6 s
    .venv/bin/python tests/support/signal_drill.py --cases 5

A command must end soon with exit code 128 + signal number (or 0, if it was finished), print at most one line about it, no
traceback, leave no temporary file and no child process, and every file that exists must be complete. The signal is sent to the
process group, as a terminal does, and in every fourth case a second time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END = 60.0  # seconds from the signal to the end of the process
STARTUP = 0.12  # seconds in which Python itself starts: it prints a traceback for SIGINT, and dies from the others
NOTES = (
    "note:",
    "started",
    "interrupted",
    "stopped",
    "Images stay",
    "these methods",
    "Open ",
    "seewhy: ",
    "preprocessing",
)
IMAGE_SUFFIXES = {".jpg", ".png"}


def signal_case(
    command: Sequence[str], number: signal.Signals, delay: float, out: Path, *, repeat: bool = False
) -> dict[str, Any]:
    """Start `python -m seewhy COMMAND`, send a signal after `delay` seconds, and return what happened.

    `out` is the folder that the command writes. "problems" of the result is empty if everything is as it should be.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "seewhy", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=restore_signals,
    )  # fmt: skip
    time.sleep(delay)
    was_running = child.poll() is None
    send(child.pid, number)
    if repeat:
        time.sleep(0.05)
        send(child.pid, number)
    start = time.monotonic()
    try:
        stdout, stderr = child.communicate(timeout=END)
    except subprocess.TimeoutExpired:
        send(child.pid, signal.SIGKILL)
        stdout, stderr = child.communicate()
        return {"problems": ["it did not end"], "code": None, "stderr": stderr.decode()}
    seconds = time.monotonic() - start
    errors = stderr.decode()
    problems = [*check_code(child.returncode, number, delay, was_running), *check_text(errors, delay, number)]
    problems += [f"temporary file {path.name}" for path in temporary_files(out)]
    problems += [problem for path in sorted(out.rglob("*")) if path.is_file() for problem in check_file(path)]
    if not wait_for_group(child.pid):
        problems.append("a child process is still running")
        send(child.pid, signal.SIGKILL)
    return {
        "command": command[0], "signal": number.name, "delay": delay, "code": child.returncode, "seconds": round(seconds, 2),
        "stdout": stdout.decode(), "stderr": errors, "problems": problems,
    }  # fmt: skip


def restore_signals() -> None:
    """A background process of a shell ignores SIGINT, and a child inherits that."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def send(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def check_code(code: int, number: signal.Signals, delay: float, was_running: bool) -> list[str]:
    expected = {128 + number, *([] if was_running and delay < 1 else [0, 1])}
    if delay < STARTUP or code == -number:  # the default action of the signal, which shells report as the same code
        expected.add(-number)
    return [] if code in expected else [f"exit code {code}"]


def check_text(errors: str, delay: float, number: signal.Signals) -> list[str]:
    if delay < STARTUP and number == signal.SIGINT:
        return []
    problems = ["a traceback"] if "Traceback" in errors or "Exception ignored" in errors else []
    others = [line for line in errors.splitlines() if line and not is_note(line)]
    ends = [line for line in errors.splitlines() if "interrupted" in line or "stopped" in line]
    return problems + [f"stderr: {line}" for line in others[:3]] + (["more than one line"] if len(ends) > 1 else [])


def is_note(line: str) -> bool:
    return line.startswith(NOTES) or "parts are finished" in line or " images" in line


def temporary_files(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.endswith((".part", ".tmp", ".partial"))]


def check_file(path: Path) -> list[str]:
    """Return why a file is not complete, or []."""
    try:
        if path.suffix in IMAGE_SUFFIXES:
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                for name in arrays.files:
                    arrays[name]
        elif path.suffix == ".parquet":
            from pyarrow import parquet

            parquet.read_table(path)
        elif path.suffix == ".html":
            assert path.read_text("utf-8").rstrip().endswith("</html>"), "no end"
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    except Exception as error:
        return [f"{path.name}: {type(error).__name__}: {error}"]
    return []


def wait_for_group(group: int) -> bool:
    """Return True if every process of the group ends within a few seconds. Decoder processes notice it after one second."""
    for _ in range(100):
        if not any(is_alive(entry, group) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            return True
        time.sleep(0.05)
    return False


def is_alive(process: Path, group: int) -> bool:
    try:
        state, _, own_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(own_group) == group and state != "Z"


class Drill:
    """Inputs for every command: images, a saved run, and a finished bulk run. Each case gets copies."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.images = home / "images"
        self.images.mkdir()
        draw = np.random.default_rng(0)
        for number in range(8):
            Image.fromarray(draw.integers(0, 255, (120, 160, 3), np.uint8)).save(self.images / f"{number}.png")

    def prepare(self) -> None:
        """Compute the saved run and the bulk run."""
        start = [sys.executable, "-m", "seewhy"]
        subprocess.run([*start, str(self.images / "0.png"), "-q", "--out", str(self.home / "saved")], check=True)
        subprocess.run([*start, *self.bulk(self.home / "run"), "-q"], check=True)

    def bulk(self, out: Path) -> list[str]:
        return ["bulk", str(self.images), "--out", str(out), "--part-size", "2", "--batch-size", "2", "--workers", "1"]

    def case(self, kind: str) -> tuple[list[str], Path]:
        """Return a command and the folder that it writes."""
        out = Path(tempfile.mkdtemp(prefix="case-", dir=self.home)) / "out"
        match kind:
            case "explain":
                return [str(self.images), "--out", str(out)], out
            case "bulk":
                return self.bulk(out), out
            case "demo":
                return ["demo", "--out", str(out)], out
            case "serve":
                return ["serve", "--port", "0"], out
            case "report":
                shutil.copytree(self.home / "saved", out)
                return ["report", str(out / "0")], out
            case "summary":
                shutil.copytree(self.home / "run", out)
                return ["summary", str(out)], out
            case "export":
                return ["export", str(self.home / "run"), "--to", "png", "--out", str(out)], out
        raise ValueError(kind)


KINDS = ("explain", "bulk", "serve", "explain", "summary", "export", "demo", "report", "bulk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="signals-") as folder:
        drill = Drill(Path(folder))
        drill.prepare()
        for index in range(options.cases):
            command, out = drill.case(KINDS[index % len(KINDS)])
            number, delay = SIGNALS[index // len(KINDS) % 3 if index % 2 else index % 3], round(draw.uniform(0, 6), 2)
            result = signal_case(command, number, delay, out, repeat=index % 4 == 3)
            failed += bool(result["problems"])
            shown = {name: result.get(name) for name in ("command", "signal", "delay", "code", "seconds", "problems")}
            print(json.dumps(shown), flush=True)
            if result["problems"]:
                print(result["stderr"], flush=True)
    print(f"{options.cases} signals, {failed} with problems")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
