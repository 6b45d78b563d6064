"""Files and a small network for the tests of security and data loss."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import nn


def save_images(folder: Path, count: int = 2) -> None:
    """Write the images 0.png, 1.png, ... of one color each."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (40, 30), (90 * number, 40, 200)).save(folder / f"{number}.png")


def file_contents(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_network() -> nn.Module:
    """Return a network with one convolution and five classes."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
