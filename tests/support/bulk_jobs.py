"""A small network and helpers for tests of bulk jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

import seewhy
from seewhy.bulk.dataset import Item
from seewhy.bulk.decoding import decode_image
from seewhy.bulk.job import Outcome, run_job
from seewhy.bulk.rows import BatchItem
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.images.preprocess import Preprocess

LABELS = ["ant", "bee", "cat", "dog"]
BATCH_SIZES: list[int] = []  # of forward passes; module-level because the model's twin would have its own list


class SmallNetwork(nn.Module):
    """Four classes, inputs of 32 x 32, a few milliseconds per batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).mean((2, 3)))


class RefusesBlackImages(SmallNetwork):
    """Raises an error for a batch that contains a black image."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if (inputs.flatten(1).amax(1) < -0.99).any():
            raise RuntimeError("too dark for me")
        return super().forward(inputs)


class OutOfMemoryAboveThree(SmallNetwork):
    """Runs out of memory for batches of more than three images."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        BATCH_SIZES.append(len(inputs))
        if len(inputs) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return super().forward(inputs)


class FailsAfter(SmallNetwork):
    """Fails permanently after a number of images, like a lost device. `message` is the text of the error."""

    def __init__(self, after: int, message: str) -> None:
        super().__init__()
        self.after, self.message = after, message

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        BATCH_SIZES.append(len(inputs))
        if sum(BATCH_SIZES) > self.after:
            raise RuntimeError(self.message)
        return super().forward(inputs)


def load_small(network: nn.Module | None = None) -> seewhy.LoadedModel:
    """Load a network of this file (default: `SmallNetwork`) with preprocessing and labels."""
    preprocess = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", 32, fit="squash")
    return seewhy.load_model((network or SmallNetwork()).eval(), preprocess=preprocess, labels=LABELS)


def start(
    loaded: seewhy.LoadedModel, inputs: Path, out: Path, settings: BulkSettings | None = None, **execution: Any
) -> Outcome:
    """Run a job with batches of 2 and parts of 4 images, decoded in a thread, unless `execution` says otherwise."""
    options = Execution(**{"workers": 0, "batch_size": 2, "part_size": 4, **execution})
    return run_job(loaded, [str(inputs)], out, settings or BulkSettings(), options, quiet=True)


def part_contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}


def temporary_files(out: Path) -> list[Path]:
    return list(out.glob(".*.tmp"))


def read_events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log-0-of-1.jsonl").read_text().splitlines()]


def read_notes(out: Path) -> list[str]:
    return [event["text"] for event in read_events(out) if event["event"] == "note"]


def batch_items(loaded: seewhy.LoadedModel, photos: Path) -> list[BatchItem]:
    """Return the decoded images of a folder."""
    paths = sorted(photos.rglob("*.png"))
    images = [decode_image(Item(path.name, str(path)), loaded.preprocess, 10**6) for path in paths]
    return [BatchItem(position, image) for position, image in enumerate(images)]


def copies(photos: Path, count: int) -> Path:
    """Return a new folder with `count` copies of one image."""
    folder = photos.parent / "copies"
    folder.mkdir()
    for number in range(count):
        shutil.copy(photos / "ant" / "1.png", folder / f"{number:04d}.png")
    return folder
