"""Write the table of detectors, video, text and other networks in docs/models.md.

    .venv/bin/python docs/make_listed.py

Takes about two minutes. `tests/models/test_listed_networks.py` compares the maps of these networks with hand-written Grad-CAM.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

import seewhy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.listed_networks import LISTED  # noqa: E402

START, END = "<!-- listed -->\n", "<!-- end of listed -->\n"


def row(name: str) -> str:
    """Return the table row of one network: its input, layer, grid and target."""
    torch.manual_seed(0)
    net, inputs = LISTED[name].make()
    e = seewhy.explain(net.eval(), inputs)
    layer = e.layers[0]
    size, grid = ("x".join(map(str, lengths)) for lengths in (e.size, e.layer_info[layer].grid))
    return f"| {name} | {size} | `{layer}` | {grid} | {describe_target(e)} |"


def describe_target(e: seewhy.Explanation) -> str:
    """Return the kind of the default target, from its notes."""
    kinds = {
        "detection:": "the best box", "the output is dense": "the largest region",
        "which predict the next token": "the next token",
        "target: the mean of the lengths": "the mean length of its vectors", "target: the mean": "the mean of the output",
    }  # fmt: skip
    text = " ".join(e.notes)
    return next((kind for sign, kind in kinds.items() if sign in text), "the predicted class")


def with_table(page: str) -> str:
    """Return a page with the table between its two marks."""
    warnings.simplefilter("ignore")
    rows = "\n".join(row(name) for name in LISTED)
    table = f"| network | input | layer | grid | default target |\n|---|---|---|---|---|\n{rows}\n"
    before, rest = page.split(START)
    return f"{before}{START}{table}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = HERE / "models.md"
    path.write_text(with_table(path.read_text("utf-8")), "utf-8")
