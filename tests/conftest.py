"""Fixtures for all tests: the embedded network, a photo from the optional data folder, and a browser."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import seewhy
from support.browser import CHROMIUM, FLAGS
from support.paths import DATA

# A shell ignores Ctrl-C for commands in the background, and the processes that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded() -> seewhy.LoadedModel:
    return seewhy.load_model()


@pytest.fixture(scope="session")
def bus() -> Path:
    """A street photo with a minibus and three persons."""
    path = DATA / "pictures" / "bus.jpg"
    if not path.exists():
        pytest.skip(f"the data folder does not exist ({path.parent.parent}; set SEEWHY_DATA)")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
