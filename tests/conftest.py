"""Fixtures that all tests share: the embedded network, a real photo where the data folder exists, a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import seewhy
from support.browser import CHROMIUM, FLAGS
from support.paths import DATA


@pytest.fixture(scope="session")
def embedded() -> seewhy.LoadedModel:
    return seewhy.load_model()


@pytest.fixture(scope="session")
def bus() -> Path:
    path = DATA / "pictures" / "bus.jpg"
    if not path.exists():
        pytest.skip(f"the data folder does not exist ({path.parent.parent}; set SEEWHY_DATA)")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
