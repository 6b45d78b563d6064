"""Kill a bulk job where it hurts, let it go on, and look whether every picture has exactly its rows, bit for bit.

    .venv/bin/python tests/drill.py                     # 50 random moments, each named step, 20 times on Ray
    .venv/bin/python tests/drill.py --random 3 --ray 0  # a short form; tests/test_bulk_drill.py runs one, with `Plain`

A job is killed (SIGKILL: nothing can be put in order), looked at (no part file is torn or differs from an undisturbed run), and
started again until it ends by itself; then all part files must equal those of the undisturbed run, byte for byte. Steps are
those that `seewhy.bulk.parts` names; a child kills itself there. On Ray an actor or the driver is killed.
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
PICTURES, PART = 40, 2
LONGEST = 240.0  # seconds for a start; more means that it hangs
SEEWHY = "from seewhy.cli import main; main()"
DYING = """
import os, signal, sys
from seewhy.bulk import part_files as parts
step, left = sys.argv[1], int(sys.argv[2])
def reached(name):
    global left
    if name == step:
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
parts.reached = reached
from seewhy.cli.main import main
main(sys.argv[3:])
"""

Child = subprocess.Popen[bytes]


class Plain(nn.Module):
    """About as slow as the embedded network and sooner there, as it takes neither timm nor torchvision."""

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
    """Named `support.kill_drill:plain`."""
    preprocess = seewhy.Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bilinear", 256)
    return seewhy.load_model(Plain().eval(), preprocess=preprocess)


def make_pictures(folder: Path) -> None:
    """Pictures that differ, two of the same name, and one that is broken."""
    photo = Image.open(seewhy.sample("coffee")).convert("RGB").resize((320, 240))
    draw = np.random.default_rng(0)
    for number in range(PICTURES - 1):
        left, top = draw.integers(0, 60, 2)
        path = folder / f"group{number % 2}" / f"{number // 2:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + 240, top + 180)).save(path, quality=90)
    (folder / "group1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")


class Drill:
    """A data set, the run that nothing disturbed, and starts of the same job in other folders.

    `model` is a name as on the command line; None: the embedded network.
    """

    def __init__(self, home: Path, log: Callable[[str], None] = print, model: str | None = None) -> None:
        self.home, self.log, self.model = home, log, model
        self.pictures = home / "pictures"
        make_pictures(self.pictures)
        self.kills = 0
        self.references: dict[str, dict[str, bytes]] = {}

    def command(self, out: Path, engine: str) -> list[str]:
        # one thread: with another number of them sums are added in another order
        return [
            "bulk", str(self.pictures), "--out", str(out), "--part-size", str(PART), "--batch-size", "2", "--engine", engine,
            "--workers", "1", "--quiet", *(["--actors", "2"] if engine == "ray" else []),
            *(["--model", self.model, "--allow-code"] if self.model else []),
        ]  # fmt: skip

    def start(self, out: Path, engine: str = "local", script: str = SEEWHY, given: Sequence[str] = ()) -> Child:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", script, *given, *self.command(out, engine)]
        with open(self.home / "errors.txt", "ab") as errors:  # the child keeps its own hold of it
            return subprocess.Popen(command, stdout=errors, stderr=errors, env=environment, start_new_session=True)

    def finish(self, out: Path, engine: str = "local") -> None:
        """Start, and wait for the end; 1 is right, as one picture is broken."""
        child = self.start(out, engine)
        try:
            code = child.wait(LONGEST)
        finally:
            kill_group(child)
        assert code == 1, f"exit code {code}: {(self.home / 'errors.txt').read_text(errors='replace')[-2000:]}"

    def reference(self, engine: str = "local") -> dict[str, bytes]:
        """The part files of a run that nothing disturbed."""
        if engine not in self.references:
            self.finish(self.home / f"undisturbed-{engine}", engine)
            found = self.references[engine] = part_files(self.home / f"undisturbed-{engine}")
            assert len(found) == -(-PICTURES // PART), f"{len(found)} part files"
        return self.references[engine]

    def look(self, out: Path, engine: str = "local") -> int:
        """Compare what is there with the undisturbed run; gives how many parts there are."""
        known, found = self.reference(engine), part_files(out)
        for name, content in found.items():
            assert content == known[name], f"{name} differs from the undisturbed run"
        return len(found)

    def check_end(self, out: Path, engine: str = "local") -> None:
        """Everything is there, once; and nothing else is."""
        assert self.look(out, engine) == len(self.reference(engine)), "a part is missing"
        rows = seewhy.read_run(out).table.to_pylist()
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids)) == PICTURES, f"{len(ids)} rows of {len(set(ids))} pictures"
        assert [row["id"] for row in rows if row["error"]] == ["group1/broken.jpg"]
        left = [path.name for path in out.iterdir() if path.name.endswith(".tmp")]
        assert not left, f"left behind: {left}"

    # What happens to a job

    def at_steps(self, *moments: tuple[str, int]) -> None:
        """One job, whose child kills itself when it comes to a step for the so-manyth time, at one moment after the other."""
        out = self.fresh()
        for step, times in moments:
            child = self.start(out, script=DYING, given=[step, str(times)])
            code = child.wait(LONGEST)
            kill_group(child)
            assert code == -signal.SIGKILL, f"the child ended with {code} before '{step}' came {times} times"
            self.killed(f"at '{step}' ({times})", self.look(out))
        self.finish(out)
        self.check_end(out)

    def at_random(self, victims: Sequence[str], engine: str, draw: random.Random, longest: float) -> None:
        """One job, a victim of which ("driver", or on Ray "actor") is killed at a random moment after each new part file.

        A killed driver is started again; of an actor Ray makes a new one, and the job goes on.
        """
        out = self.fresh()
        self.reference(engine)  # before, as it takes the same processors
        child: Child | None = None
        for victim in victims:
            child = child or self.start(out, engine)
            before = len(part_files(out))
            wait_until(lambda child=child, before=before: len(part_files(out)) > before or child.poll() is not None)
            time.sleep(draw.uniform(0, longest))
            if victim == "driver":
                kill_group(child)
                gone_with(child)
                child = None
            elif actors := ray_actors(child.pid):
                os.kill(draw.choice(actors), signal.SIGKILL)
            self.killed(f"{engine} {victim}", self.look(out, engine))
            if len(part_files(out)) == len(self.reference(engine)):
                break
        if child is not None:
            child.wait(LONGEST)
            gone_with(child)
        self.finish(out, engine)
        self.check_end(out, engine)

    def crossing(self) -> None:
        """A job begun here goes on on Ray, after a kill. Threads differ, so the last digits may."""
        out = self.fresh()
        child = self.start(out, script=DYING, given=["after rename", "3"])
        child.wait(LONGEST)
        kill_group(child)
        there = part_files(out)
        assert len(there) == 3, f"{len(there)} parts"
        self.finish(out, "ray")
        now = part_files(out)
        assert {name: now[name] for name in there} == there, "Ray wrote parts that were there"
        assert sorted(now) == sorted(self.reference())
        ids = [row["id"] for row in seewhy.read_run(out).table.select(["id"]).to_pylist()]
        assert len(ids) == len(set(ids)) == PICTURES
        self.log(f"local to Ray: {len(there)} parts kept, {len(now) - len(there)} done on Ray")

    def killed(self, how: str, parts: int) -> None:
        self.kills += 1
        self.log(f"kill {self.kills}: {how}, {parts} parts there, all whole")

    def fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.home)) / "run"


def part_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*.parquet")} if out.exists() else {}


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST
    while not true():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.02)


def kill_group(child: Child) -> None:
    """The child and the processes that read for it, at once. Ray's are not of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(LONGEST)


def gone_with(child: Child) -> None:
    """Wait until Ray's processes of a dead driver are gone."""
    wait_until(lambda: not ray_actors(child.pid))


def ray_actors(driver: int) -> list[int]:
    """The actors of Ray on this machine. (One cluster at a time runs here, so they are this driver's.)"""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"ray::MapWorker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=50, help="kills at random moments")
    parser.add_argument("--ray", type=int, default=20, help="kills on Ray, half of actors and half of the driver")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    home = Path(tempfile.mkdtemp(prefix="drill-"))
    drill = Drill(home, log=lambda text: print(text, flush=True))
    for step in STEPS:
        drill.at_steps((step, 1 if step == "lock taken" else draw.randint(2, 8)))
    while drill.kills < len(STEPS) + options.random:
        several = min(5, len(STEPS) + options.random - drill.kills)
        drill.at_random(["driver"] * several, "local", draw, longest=1.5)
    done = drill.kills
    while drill.kills < done + options.ray:
        drill.at_random(["actor", "driver"][: done + options.ray - drill.kills], "ray", draw, longest=1.0)
    if options.ray:
        drill.crossing()
    print(f"{drill.kills} kills, and every picture had exactly its rows")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
