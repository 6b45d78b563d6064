"""A bulk job runs no code from the folder of a dataset, unless the user allowed it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import seewhy
from support.untrusted_files import save_images

SOURCE = str(Path(seewhy.__file__).parents[1])


def run_script(folder: Path, text: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script like an installed command: the folder of the script, not the current directory, is on `sys.path`."""
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(folder / "script.py"), *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**environment, "PYTHONPATH": SOURCE}, capture_output=True, text=True, timeout=120
    )


BOTH_ENGINES = """
import sys, torch, seewhy
from torch import nn

net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
for engine in ("local", "ray"):
    run = seewhy.explain_all(
        net, ".", f"{sys.argv[1]}/{engine}", preprocess=seewhy.Preprocess.imagenet(32), workers=1, engine=engine, quiet=True
    )
    print(engine, len(run), len(run.failed))
"""


def test_bulk_jobs_run_no_code_from_the_current_directory(tmp_path: Path) -> None:
    """No decoder, resource tracker or Ray worker imports a file of the dataset, whatever module it is named after."""
    photos, executed = tmp_path / "photos", tmp_path / "executed"
    save_images(photos)
    executed.mkdir()
    names = {name for name in (*sys.stdlib_module_names, *packages_distributions(), "seewhy") if name.isidentifier()}
    assert names > {"random", "multiprocessing", "loky", "pandas", "pyarrow", "seewhy"}
    for name in names:
        (photos / f"{name}.py").write_text(f"open({str(executed / name)!r}, 'w').close()\n")
    result = run_script(tmp_path / "bin", BOTH_ENGINES, photos, str(tmp_path))
    assert sorted(path.name for path in executed.iterdir()) == []
    assert result.returncode == 0 and result.stdout.split("\n")[:2] == ["local 2 0", "ray 2 0"], result.stderr


OWN_MODEL = """
import numpy as np, seewhy, torch
from torch import nn
from seewhy.images.view import View

def prepare(image):
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    return pixels, View.identity(tuple(pixels.shape[2:]))

def make():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return seewhy.LoadedModel(net.eval(), prepare)
"""


def test_allowed_code_from_the_current_directory_runs_in_decoders(tmp_path: Path) -> None:
    """With --allow-code, a decoder process imports the preprocessing of a module in the current directory."""
    save_images(tmp_path / "photos")
    (tmp_path / "photos" / "own_model.py").write_text(OWN_MODEL)
    command = "from seewhy.cli.main import main\nif __name__ == '__main__':\n    main()\n"
    arguments = (
        "bulk",
        ".",
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "1",
        "--model",
        "own_model:make",
        "--allow-code",
    )
    result = run_script(tmp_path / "bin", command, tmp_path / "photos", *arguments)
    assert result.returncode == 0, result.stderr
    assert seewhy.read_run(tmp_path / "run").failed == []
