"""Fixtures of the tests of bulk jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seewhy
from support.bulk_jobs import load_small


@pytest.fixture(scope="session")
def small() -> seewhy.LoadedModel:
    return load_small()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images in two folders that are classes."""
    folder = tmp_path / "photos"
    random = np.random.default_rng(0)
    for number in range(10):
        path = folder / ("ant" if number % 2 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 48, 3), np.uint8)).save(path)
    return folder
