"""Run the tutorials of other CAM packages, with their imports or with those of `seewhy.compat`."""

from __future__ import annotations

import ast
import re
import sys
import types

import numpy as np
from numpy.typing import NDArray

from support.paths import ROOT

FOLDER = ROOT / "tests" / "compat" / "tutorials"
TUTORIALS = sorted(path.stem for path in FOLDER.glob("*.py"))
PEER_RESULTS = FOLDER.parent / "peer_results.npz"
IMPORT = re.compile(r"^from (pytorch_grad_cam|torchcam|captum)\b", re.MULTILINE)
NOISY = "noisy: "  # results that depend on random numbers
DIFFERS = "differs: "  # results that differ on purpose


def run_tutorial(name: str, *, compat: bool) -> dict[str, NDArray[np.float32]]:
    """Run a tutorial and return its `results`.

    Args:
        name: The name of the file.
        compat: True to change each `from torchcam ...` to `from seewhy.compat.torchcam ...`, and nothing else.
    """
    text = (FOLDER / f"{name}.py").read_text("utf-8")
    module = types.ModuleType(f"tutorial_{name}")
    sys.modules[module.__name__] = module
    exec(compile(IMPORT.sub(r"from seewhy.compat.\1", text) if compat else text, name, "exec"), module.__dict__)
    return {key: np.asarray(value, np.float32) for key, value in module.__dict__["results"].items()}


def sample_values(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return at most 400 evenly spaced values of an array, to be saved."""
    flat = values.reshape(-1)
    return flat[:: -(-flat.size // 400)]


def packages_of(name: str) -> list[str]:
    """Return the names that a tutorial imports from another package, as "torchcam.methods.GradCAM"."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    peers = [
        node for node in lines if (node.module or "").partition(".")[0] in ("pytorch_grad_cam", "torchcam", "captum")
    ]
    return [f"{node.module}.{alias.name}" for node in peers for alias in node.names]


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the largest difference relative to the largest absolute value; infinity for other shapes.

    >>> difference(np.float32([1, 2]), np.float32([1, 4]))
    0.5
    """
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
