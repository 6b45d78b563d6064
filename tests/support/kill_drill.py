"""Kill a bulk job at critical moments, resume it, and compare its part files with an undisturbed run, byte for byte.

    .venv/bin/python tests/support/kill_drill.py                     # 50 random moments, every named step, 20 times on Ray
    .venv/bin/python tests/support/kill_drill.py --random 3 --ray 0  # short; tests/bulk/test_kill_drill.py runs a shorter one

SIGKILL lets the job do nothing at its end. After each kill, every existing part file must be complete and equal to that of the
undisturbed run; then the job is started again until it ends normally. Steps are the arguments of
`seewhy.bulk.part_files.reached`; a child process kills itself there. On Ray an actor or the driver is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import seewhy

STEPS = ("lock taken", "temporary opened", "temporary written", "before rename", "after rename")
IMAGES, PART_SIZE = 40, 2
TIMEOUT = 240.0  # seconds per process
SEEWHY = "from seewhy.cli.main import main; main()"
KILLS_ITSELF = """
import os, signal, sys
from seewhy.bulk import part_files
step, left = sys.argv[1], int(sys.argv[2])
def reached(name):
    global left
    if name == step:
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
part_files.reached = reached
from seewhy.cli.main import main
main(sys.argv[3:])
"""

Child = subprocess.Popen[bytes]


class PlainNetwork(nn.Module):
    """About as slow as the embedded network, and faster to load because it needs neither timm nor torchvision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (3, 32, 32, 32, 32)
        convolutions = [nn.Conv2d(a, b, 3, 1 + (a == 3), 1) for a, b in itertools.pairwise(widths)]
        self.features = nn.Sequential(*(layer for one in convolutions for layer in (one, nn.ReLU())))
        self.head = nn.Linear(32, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).mean((2, 3)))


def plain() -> seewhy.LoadedModel:
    """Return the model of `--model support.kill_drill:plain`."""
    preprocess = seewhy.Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bilinear", 256)
    return seewhy.load_model(PlainNetwork().eval(), preprocess=preprocess)


def make_images(folder: Path, count: int) -> None:
    """Write different images into two folders with the same file names, one of them broken."""
    photo = Image.open(seewhy.sample("coffee")).convert("RGB").resize((320, 240))
    random_offsets = np.random.default_rng(0)
    for number in range(count - 1):
        left, top = random_offsets.integers(0, 60, 2)
        path = folder / f"group{number % 2}" / f"{number // 2:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + 240, top + 180)).save(path, quality=90)
    (folder / "group1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")


class Drill:
    """A dataset of `count` images, its undisturbed run, and starts of the same job in other folders.

    `model` is a model URI. Default: the embedded network.
    """

    def __init__(
        self, home: Path, log: Callable[[str], None] = print, model: str | None = None, count: int = IMAGES
    ) -> None:
        self.home, self.log, self.model, self.count = home, log, model, count
        self.images = home / "images"
        make_images(self.images, count)
        self.kills = 0
        self.references: dict[str, dict[str, bytes]] = {}

    def command(self, out: Path, engine: str) -> list[str]:
        return [
            "bulk", str(self.images), "--out", str(out), "--part-size", str(PART_SIZE), "--batch-size", "2", "--engine",
            engine, "--workers", "1", "--quiet", *(["--actors", "2"] if engine == "ray" else []),
            *(["--model", self.model, "--allow-code"] if self.model else []),
        ]  # fmt: skip

    def start(self, out: Path, engine: str = "local", script: str = SEEWHY, arguments: Sequence[str] = ()) -> Child:
        # One thread: the order of sums depends on the number of threads.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", script, *arguments, *self.command(out, engine)]
        with open(self.home / "errors.txt", "ab") as errors:  # the child inherits the file
            return subprocess.Popen(command, stdout=errors, stderr=errors, env=environment, start_new_session=True)

    def finish(self, out: Path, engine: str = "local") -> None:
        """Run the job to its end. The exit code is 1 because one image is broken."""
        child = self.start(out, engine)
        try:
            code = child.wait(TIMEOUT)
        finally:
            kill_group(child)
        assert code == 1, f"exit code {code}: {(self.home / 'errors.txt').read_text(errors='replace')[-2000:]}"

    def reference(self, engine: str = "local") -> dict[str, bytes]:
        """Return the part files of an undisturbed run."""
        if engine not in self.references:
            self.finish(self.home / f"undisturbed-{engine}", engine)
            files = self.references[engine] = part_files(self.home / f"undisturbed-{engine}")
            assert len(files) == -(-self.count // PART_SIZE), f"{len(files)} part files"
        return self.references[engine]

    def compare(self, out: Path, engine: str = "local") -> int:
        """Compare the existing part files with the undisturbed run. Return their number."""
        reference, files = self.reference(engine), part_files(out)
        for name, content in files.items():
            assert content == reference[name], f"{name} differs from the undisturbed run"
        return len(files)

    def check_end(self, out: Path, engine: str = "local") -> None:
        """Check that every image has its rows exactly once, and that no temporary file remains."""
        assert self.compare(out, engine) == len(self.reference(engine)), "a part is missing"
        rows = seewhy.read_run(out).table.to_pylist()
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids)) == self.count, f"{len(ids)} rows of {len(set(ids))} images"
        assert [row["id"] for row in rows if row["error"]] == ["group1/broken.jpg"]
        remaining = [path.name for path in out.iterdir() if path.name.endswith(".tmp")]
        assert not remaining, f"temporary files remain: {remaining}"

    # Scenarios

    def kill_at_steps(self, *moments: tuple[str, int]) -> None:
        """Run one job whose process kills itself when it reaches a step for the n-th time, once per (step, n)."""
        out = self.new_folder()
        for step, count in moments:
            child = self.start(out, script=KILLS_ITSELF, arguments=[step, str(count)])
            code = child.wait(TIMEOUT)
            kill_group(child)
            assert code == -signal.SIGKILL, f"the child ended with {code} before it reached '{step}' {count} times"
            self.record_kill(f"at '{step}' ({count})", self.compare(out))
        self.finish(out)
        self.check_end(out)

    def kill_at_random(self, victims: Sequence[str], engine: str, random_: random.Random, max_delay: float) -> None:
        """Run one job, and kill a victim ("driver", or on Ray "actor") at a random moment after each new part file.

        A killed driver is started again. Ray replaces a killed actor, and the job continues.
        """
        out = self.new_folder()
        self.reference(engine)  # before the job: it uses the same CPUs
        child: Child | None = None
        for victim in victims:
            child = child or self.start(out, engine)
            before = len(part_files(out))
            wait_until(lambda child=child, before=before: len(part_files(out)) > before or child.poll() is not None)
            time.sleep(random_.uniform(0, max_delay))
            if victim == "driver":
                kill_group(child)
                wait_for_actors_to_end()
                child = None
            elif actors := ray_actors():
                os.kill(random_.choice(actors), signal.SIGKILL)
            self.record_kill(f"{engine} {victim}", self.compare(out, engine))
            if len(part_files(out)) == len(self.reference(engine)):
                break
        if child is not None:
            child.wait(TIMEOUT)
            wait_for_actors_to_end()
        self.finish(out, engine)
        self.check_end(out, engine)

    def resume_on_ray(self) -> None:
        """Kill a local job and resume it on Ray. The number of threads differs, so the last digits may."""
        out = self.new_folder()
        child = self.start(out, script=KILLS_ITSELF, arguments=["after rename", "3"])
        child.wait(TIMEOUT)
        kill_group(child)
        before = part_files(out)
        assert len(before) == 3, f"{len(before)} parts"
        self.finish(out, "ray")
        after = part_files(out)
        assert {name: after[name] for name in before} == before, "Ray computed finished parts again"
        assert sorted(after) == sorted(self.reference())
        ids = [row["id"] for row in seewhy.read_run(out).table.select(["id"]).to_pylist()]
        assert len(ids) == len(set(ids)) == self.count
        self.log(f"local to Ray: {len(before)} parts kept, {len(after) - len(before)} computed on Ray")

    def record_kill(self, victim: str, parts: int) -> None:
        self.kills += 1
        self.log(f"kill {self.kills}: {victim}, {parts} parts, all complete")

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.home)) / "run"


def part_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*.parquet")} if out.exists() else {}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.02)


def kill_group(child: Child) -> None:
    """Kill the child and its decoder processes. Ray's processes are in other groups."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(TIMEOUT)


def wait_for_actors_to_end() -> None:
    """Wait until Ray's processes of an ended driver have ended too."""
    wait_until(lambda: not ray_actors())


def ray_actors() -> list[int]:
    """Return the processes of Ray actors on this machine, which runs one cluster at a time."""
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"ray::MapWorker" in (entry / "cmdline").read_bytes():
                processes.append(int(entry.name))
        except OSError:
            continue
    return processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=50, help="number of kills at random moments")
    parser.add_argument(
        "--ray", type=int, default=20, help="number of kills on Ray, half of actors and half of the driver"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    home = Path(tempfile.mkdtemp(prefix="drill-"))
    drill = Drill(home, log=lambda text: print(text, flush=True))
    for step in STEPS:
        drill.kill_at_steps((step, 1 if step == "lock taken" else random_.randint(2, 8)))
    while drill.kills < len(STEPS) + options.random:
        count = min(5, len(STEPS) + options.random - drill.kills)
        drill.kill_at_random(["driver"] * count, "local", random_, max_delay=1.5)
    before = drill.kills
    while drill.kills < before + options.ray:
        drill.kill_at_random(["actor", "driver"][: before + options.ray - drill.kills], "ray", random_, max_delay=1.0)
    if options.ray:
        drill.resume_on_ray()
    print(f"{drill.kills} kills; every image has exactly its rows")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
