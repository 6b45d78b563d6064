"""Write docs/notebooks/*.ipynb from the .py files next to them, with the outputs of their cells.

    .venv/bin/python docs/make_notebooks.py

The cells of a .py file are separated by "# %%" (code) and "# %% [markdown]". Jupyter is not needed: a cell is executed, and
the value of its last expression is saved as an image if it can draw itself, else as text.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "notebooks"


@dataclass(frozen=True)
class Cell:
    """A cell: "code" or "markdown", and its text."""

    kind: str
    text: str


def read_cells(path: Path) -> list[Cell]:
    """Return the cells of a .py file."""
    cells = []
    for part in path.read_text("utf-8").split("# %%")[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            cells.append(
                Cell(
                    "markdown",
                    "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()),
                )
            )
        else:
            cells.append(Cell("code", body.strip()))
    return cells


def run(text: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Execute a cell. Returns what it printed, and the value of its last expression; None if it ends otherwise."""
    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]
    return printed.getvalue(), value


def as_png(value: object) -> bytes | None:
    """Return a value as PNG, if it can draw itself."""
    draw = getattr(value, "_repr_png_", None)
    if draw is not None:
        data: bytes | None = draw()
        return data
    return None


def outputs(printed: str, value: object, number: int) -> Iterator[dict[str, Any]]:
    if printed:
        yield {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
    if value is not None:
        drawn = as_png(value)
        data: dict[str, Any] = (
            {"text/plain": [repr(value)]} if drawn is None else {"text/plain": [type(value).__name__]}
        )
        if drawn is not None:
            data["image/png"] = base64.b64encode(drawn).decode()
        yield {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def notebook(cells: list[Cell]) -> dict[str, Any]:
    """Execute the cells in a temporary folder and return the notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    made, number = [], 0
    for place, cell in enumerate(cells):
        source = cell.text.splitlines(keepends=True)
        entry: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell{place}", "metadata": {}, "source": source}
        if cell.kind == "code":
            number += 1
            entry |= {"execution_count": number, "outputs": list(outputs(*run(cell.text, names), number))}
        made.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def main() -> None:
    for path in sorted(FOLDER.glob("*.py")):
        before = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                made = notebook(read_cells(path))
            finally:
                os.chdir(before)
        target = path.with_suffix(".ipynb")
        target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(
            target.relative_to(before) if target.is_relative_to(before) else target,
            f"{target.stat().st_size // 1024} kB",
        )


if __name__ == "__main__":
    main()
