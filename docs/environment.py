"""Create the environment that builds the documentation: python docs/environment.py .venv-docs

It installs the `docs` extra of pyproject.toml. All other packages, such as torch (5 GB), come from the environment that runs
this file.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def create(folder: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *extras["docs"]], check=True
    )
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    # addsitedir, because the editable installation of seewhy is a .pth file in that folder.
    lender = sysconfig.get_path("purelib")
    (packages / "_borrowed.pth").write_text(f"import site; site.addsitedir({lender!r})\n", "utf-8")


if __name__ == "__main__":
    create(Path(sys.argv[1]))
