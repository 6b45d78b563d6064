"""Draw the images of docs/figures.md by running the examples of that page.

.venv/bin/python docs/make_figures.py [FOLDER]
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("figures.md")
FIGURES = {"grid": "figure_grid.jpg", "shared": "figure_shared.jpg", "fig": "figure_own.jpg"}  # variable -> file


def run_examples() -> dict[str, Any]:
    """Run all Python examples of the page in a temporary folder, and return their variables."""
    names: dict[str, Any] = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for code in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
                exec(compile(code, PAGE.name, "exec"), names)
        finally:
            os.chdir(before)
    return names


def draw(folder: Path) -> None:
    """Draw the figures as JPEG files."""
    names = run_examples()
    for variable, file in FIGURES.items():
        names[variable].savefig(folder / file, dpi=170, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
