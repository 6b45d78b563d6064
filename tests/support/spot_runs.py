"""Bulk runs with the check: images with a colored spot, and networks whose score drops when the spot is covered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from support.color_runs import LABELS, PREPROCESS, ColorNet

LAYERS = ("features.0", "features.1")


class Spots(ColorNet):
    """Classifies the color of spots that are brighter than a threshold, so that blurring them lowers the score."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs).mean((2, 3)))

    def cells(self, inputs: Tensor) -> Tensor:
        cells: Tensor = self.features[1](self.features[0](inputs).pow(2) - 0.01)
        return cells


class Noisy(Spots):
    """Draws random numbers in its forward pass."""

    def forward(self, inputs: Tensor) -> Tensor:
        scores = super().forward(inputs)
        return scores + 1e-6 * torch.rand_like(scores)


def load_spots(network: nn.Module | None = None) -> seewhy.LoadedModel:
    return seewhy.load_model((network or Spots()).eval(), preprocess=PREPROCESS, labels=LABELS)


def write_spots(folder: Path, colors: list[int]) -> None:
    """Write one image for each color (a channel), of different sizes, and a broken file."""
    random = np.random.default_rng(0)
    for number, color in enumerate(colors):
        image = random.integers(0, 25, (32, 32, 3)).astype(np.uint8)
        top, left = random.integers(0, 24, 2)
        image[top : top + 8, left : left + 8, color] = random.integers(120, 255)
        size = (32 + 8 * (number % 4), 32 + 8 * (number % 3))
        Image.fromarray(image).resize(size, Image.Resampling.NEAREST).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"no")


def run_spots(loaded: seewhy.LoadedModel, photos: Path, out: Path, batch_size: int = 5, **settings: Any) -> BulkRun:
    """Run a job with the check, unless `settings` say otherwise."""
    options = BulkSettings(**{"layers": LAYERS, "check": True, **settings})
    run_job(loaded, [str(photos)], out, options, Execution(workers=0, batch_size=batch_size, part_size=6), quiet=True)
    return BulkRun.read(out)
