"""The start of the main command: it imports PyTorch, and no other large package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.command import COFFEE

# Each takes from 0.1 s to several seconds. Commands and models that need one import it on first use.
LARGE = {
    "IPython", "_pytest", "hypothesis", "huggingface_hub", "loky", "matplotlib", "mpmath", "open_clip", "pandas", "pyarrow",
    "ray", "safetensors", "scipy", "skimage", "sklearn", "starlette", "sympy", "timm", "torch._dynamo", "torch._inductor",
    "torch.distributed.tensor", "torch.fx.experimental.symbolic_shapes", "torch.onnx", "torchvision", "transformers", "triton",
    "uvicorn",
}  # fmt: skip
MOST_OF_TORCH = 20  # modules of PyTorch that `import torch` alone does not import

CODE = """
import gc, json, sys
if "first" in sys.argv:
    import torch
    before = set(sys.modules)
from seewhy.cli.main import main
try:
    main([sys.argv[1], "--quiet", "-o", sys.argv[2]])
except SystemExit as error:
    assert not error.code
result = {"modules": sorted(sys.modules), "is_enabled": gc.isenabled(), "frozen": gc.get_freeze_count()}
if "first" in sys.argv:
    result["modules"] = sorted(set(sys.modules) - before)
print(json.dumps(result))
"""


def run_command(out: Path, *arguments: str) -> dict[str, Any]:
    """Run the main command in a new process, and return what it imported."""
    command = [sys.executable, "-c", CODE, COFFEE, str(out), *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def test_main_command_imports_no_large_package_except_pytorch(tmp_path: Path) -> None:
    result = run_command(tmp_path)
    assert sorted(LARGE & set(result["modules"])) == []
    # The objects of PyTorch are excluded from the garbage collector, which runs again.
    assert result["is_enabled"] and result["frozen"] > 100_000


def test_main_command_imports_few_other_modules_of_pytorch(tmp_path: Path) -> None:
    result = run_command(tmp_path, "first")
    modules = [name for name in result["modules"] if name.startswith("torch.")]
    assert len(modules) <= MOST_OF_TORCH, modules
    # A program that calls the command after importing PyTorch keeps its objects in the collector.
    assert result["is_enabled"] and result["frozen"] == 0
