"""Build the wheel and the sdist, compare independent builds byte for byte, and run the wheel in a clean environment.

.venv/bin/python supply_chain/check_build.py          # build and compare: seconds
.venv/bin/python supply_chain/check_build.py --run    # also install it without development packages: minutes
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, folder: Path, umask: int = 0o022) -> str:
    """Run a command in a folder, without settings of Python in the environment, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.run(command, cwd=folder, env=environment, umask=umask, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{process.stdout}{process.stderr}")
    return process.stdout


def tracked_files() -> list[str]:
    return run("git", "ls-files", folder=ROOT).splitlines()


def copy_source(folder: Path, mode: int, modified: float) -> Path:
    """Copy all tracked files, with other permissions and times."""
    for name in tracked_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
        target.chmod(mode)
        os.utime(target, (modified, modified))
    return folder


def build(source: Path, output: Path, umask: int) -> dict[str, str]:
    """Build the wheel and the sdist of a source folder and return their SHA-256 sums by name."""
    run(sys.executable, "-m", "hatchling", "build", "-d", output, folder=source, umask=umask)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.iterdir()) if path.is_file()
    }


def check_builds(folder: Path) -> Path:
    """Build three times, check that all builds are equal and complete, and return the wheel."""
    first = build(copy_source(folder / "a", 0o644, 1e9), folder / "a-out", 0o022)
    second = build(copy_source(folder / "other" / "place", 0o600, time.time()), folder / "b-out", 0o077)
    assert first == second, f"two builds differ: {first} {second}"
    wheel, sdist = next((folder / "a-out").glob("*.whl")), next((folder / "a-out").glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "c", filter="data")
    third = build(next((folder / "c").iterdir()), folder / "c-out", 0o022)
    assert third[wheel.name] == first[wheel.name], "the wheel that is built from the sdist differs"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {name.removeprefix("src/") for name in tracked_files() if name.startswith("src/")}
    assert names == expected, f"missing or additional files in the wheel: {sorted(names ^ expected)}"
    return wheel


def check_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel without extras into a new environment, and use it in another folder."""
    venv.create(folder / "venv", with_pip=True)
    binaries, work = folder / "venv" / "bin", folder / "work"
    work.mkdir()
    run(binaries / "python", "-m", "pip", "install", "--quiet", wheel, folder=work)
    print(run(binaries / "python", "-m", "pip", "check", folder=work).strip())
    print(run(binaries / "seewhy", "--version", folder=work).strip())
    found = run(
        binaries / "python", "-c", "import seewhy; print(seewhy.__file__, seewhy.sample('coffee'))", folder=work
    )
    assert found.startswith(str(folder / "venv")), found
    image = found.split()[1]
    run(binaries / "seewhy", image, "--out", "result", folder=work)
    written = {path.suffix for path in (work / "result").rglob("*") if path.is_file()}
    assert {".html", ".jpg"} <= written, f"no page or no overlay was written: {written}"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        wheel = check_builds(Path(name))
        print(f"{wheel.name}: three builds are equal, and all files are included")
        if "--run" in sys.argv:
            check_installed(wheel, Path(name))
            print("the wheel works in a clean environment")


if __name__ == "__main__":
    main()
