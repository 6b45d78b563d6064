"""What the tests share: the data folder, where there is one, the embedded network, a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import seewhy
from browsing import CHROMIUM, FLAGS

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("SEEWHY_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def embedded() -> seewhy.LoadedModel:
    return seewhy.load_model()


@pytest.fixture(scope="session")
def bus() -> Path:
    path = DATA / "pictures" / "bus.jpg"
    if not path.exists():
        pytest.skip(f"the data folder is absent ({path.parent.parent}; set SEEWHY_DATA)")
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
