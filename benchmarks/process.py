"""Time of complete command-line processes, from start to exit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from race import Times, race
from results import Aim, Report, Table

CLI = [
    sys.executable,
    "-c",
    "import sys; from seewhy.cli.main import main; sys.exit(main())",
]  # as the installed script
IMPORTS = [sys.executable, "-c", "import torch"]
MEGAPIXELS_12 = (3000, 4000)
DATA = Path(os.environ.get("SEEWHY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def environment() -> dict[str, str]:
    """Write bytecode, as in a normal installation; without it, an editable installation is slower than a wheel."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def finish(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[-1]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done


def photo(folder: Path) -> Path:
    """Return the tutorial's photo, or a synthetic image of its size if the photo is not available."""
    given = DATA / "pictures" / "bus.jpg"
    copy = folder / "bus.jpg"
    if given.exists():
        copy.write_bytes(given.read_bytes())
    else:
        coarse = np.random.default_rng(0).integers(0, 255, (27, 20, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((810, 1080), Image.Resampling.BICUBIC).save(copy, quality=90)
    return copy


def enlarged(source: Path) -> Path:
    target = source.with_name("12mp.jpg")
    with Image.open(source) as image:
        image.resize(MEGAPIXELS_12, Image.Resampling.BICUBIC).save(target, quality=90)
    return target


def imports_torch(command: list[str], folder: Path) -> bool:
    timed = [command[0], "-X", "importtime", *command[1:]]
    return re.search(r"\|\s+torch$", finish(timed, folder).stderr, re.MULTILINE) is not None


def report(times: Times, torch_in_help: bool) -> Report:
    rows = [[name, f"{times.median(name):.2f}", str(times.ratio(name, "imports"))] for name in times.seconds]
    note = (
        "Fresh processes, in a new random order each round. *imports* is only `import torch`; "
        "12 MP is the same photo, enlarged."
    )
    aims = [
        Aim("`seewhy bus.jpg` / `import torch`", times.ratio("seewhy bus.jpg", "imports").median, 1.8),
        Aim("`seewhy --help`", times.median("seewhy --help"), 0.4, "s"),
        Aim("`seewhy --help`: imports of torch", int(torch_in_help), 0, ""),
        Aim("`seewhy 12mp.jpg` / `seewhy bus.jpg`", times.ratio("seewhy 12mp.jpg", "seewhy bus.jpg").median, 2.0),
    ]
    return Report([Table("Command line", ["command", "median s", "times imports (quartiles)"], rows, note)], aims)


def measure(rounds: int) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bus = photo(folder)
        large = enlarged(bus)
        commands = {
            "imports": IMPORTS,
            "seewhy --help": [*CLI, "--help"],
            "seewhy bus.jpg": [*CLI, bus.name],
            "seewhy 12mp.jpg": [*CLI, large.name],
        }
        jobs: dict[str, Callable[[], object]] = {key: partial(finish, value, folder) for key, value in commands.items()}
        return report(race(jobs, rounds), imports_torch(commands["seewhy --help"], folder))
