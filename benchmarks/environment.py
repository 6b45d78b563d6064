"""Create `.venv-bench`: the peers, on top of the environment that runs this file.

    .venv/bin/python benchmarks/environment.py

torch alone is 5 GB, so the new environment uses the packages of this one through a .pth file and installs only missing
packages, never a second torch or numpy. The library and its tests never import the peers.
"""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = HERE.parent / ".venv-bench"
REQUIREMENTS = HERE / "requirements.txt"
STAMP = PLACE / "requirements.installed"


def packages_of(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", code], text=True).strip())


def borrow(python: Path, lender: str) -> None:
    # addsitedir, because the editable installation of seewhy is a .pth file in that folder.
    (packages_of(python) / "_borrowed.pth").write_text(f"import site; site.addsitedir({lender!r})\n")


def install(python: Path) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", REQUIREMENTS], check=True)


def main() -> None:
    if STAMP.exists() and STAMP.read_text() == REQUIREMENTS.read_text():
        return
    venv.create(PLACE, with_pip=True, clear=True)
    python = PLACE / ("Scripts" if sysconfig.get_platform().startswith("win") else "bin") / "python"
    install(python)  # before borrowing, so that pip considers its own packages only
    borrow(python, sysconfig.get_path("purelib"))
    STAMP.write_text(REQUIREMENTS.read_text())  # last, so that an interrupted setup starts again


if __name__ == "__main__":
    main()
