"""Small bulk runs whose results are known: images with a colored spot, and a network that classifies its color."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.images.preprocess import Preprocess

LABELS = ["red", "green", "blue", "<i>none</i> & co"]
CORNERS = {"red": (0, 0), "green": (0, 24), "blue": (24, 0)}
PREPROCESS = Preprocess((32, 32), (0.0,) * 3, (1.0,) * 3, "nearest", 32, fit="squash")
Row = dict[str, Any]


class ColorNet(nn.Module):
    """Classifies the color of the brightest spot from the mean of each color channel, so its maps lie on the spot."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 8, stride=8, bias=False), nn.ReLU())
        self.head = nn.Linear(3, 4)
        with torch.no_grad():
            self.features[0].weight.zero_()
            for channel in range(3):
                self.features[0].weight[channel, channel] = gain / 64
            self.head.weight.copy_(torch.tensor([[5.0, -2, -2], [-2, 5, -2], [-2, -2, 5], [0, 0, 0]]))
            self.head.bias.zero_()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).mean((2, 3)))


def make_model(gain: float = 1.0) -> seewhy.LoadedModel:
    return seewhy.load_model(ColorNet(gain).eval(), preprocess=PREPROCESS, labels=LABELS)


def write_dataset(folder: Path) -> None:
    """Write 36 images and their table: a spot of each color in its corner, a third of green labeled blue, two broken files."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(36):
        color = ("red", "green", "blue")[number % 3]
        image = random.integers(0, 25, (32, 32, 3)).astype(np.uint8)
        top, left = CORNERS[color] if number % 4 else (12, 12)
        image[top : top + 8, left : left + 8, ("red", "green", "blue").index(color)] = random.integers(120, 255)
        name = f"{number:02d} <b>{color}.png"
        Image.fromarray(image).save(folder / name)
        label = "blue" if color == "green" and number % 9 == 1 else color
        rows.append((name, label, "0,0,16,16" if color == "red" else ""))
    for name in ("broken.png", "empty.png"):
        (folder / name).write_bytes(b"no" if name == "broken.png" else b"")
        rows.append((name, "red", ""))
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "boxes"), *rows])


def run_bulk(folder: Path, name: str, gain: float = 1.0, **settings: Any) -> BulkRun:
    """Run a bulk job over the dataset in `folder`, with both targets that a contrast needs."""
    bulk = BulkSettings(**{"targets": ("predicted", "label"), "store": "float16", **settings})
    execution = Execution(workers=0, batch_size=4, part_size=10)
    run_job(make_model(gain), [str(folder / "table.csv")], folder / name, bulk, execution, quiet=True)
    return BulkRun.read(folder / name)


def run_bulk_on(source: Path, out: Path, **settings: Any) -> BulkRun:
    """Run a bulk job over an image or a folder."""
    execution = Execution(workers=0, batch_size=8)
    run_job(make_model(), [str(source)], out, BulkSettings(**settings), execution, quiet=True)
    return BulkRun.read(out)


def copy_run(run: BulkRun, folder: Path, change: Callable[[Row], None]) -> BulkRun:
    """Copy a run and change its rows in place with `change`."""
    import pyarrow as pa
    from pyarrow import parquet

    shutil.copytree(run.folder, folder)
    copy = BulkRun.read(folder)
    for file in copy.files:
        table = parquet.read_table(file)
        rows = table.to_pylist()
        for row in rows:
            if row["error"] is None:
                change(row)
        parquet.write_table(pa.Table.from_pylist(rows, table.schema), file)
    return copy


def keep_layers(row: Row, keep: Callable[[str], bool]) -> None:
    """Remove layers from a row, in all columns with one entry per layer."""
    layers = row["layers"]
    for name, values in row.items():
        if isinstance(values, list) and name not in ("view", "input") and len(values) == len(layers):
            row[name] = [value for layer, value in zip(layers, values, strict=True) if keep(layer)]
