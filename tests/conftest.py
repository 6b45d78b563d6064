"""What the tests share: the data folder, where there is one, and the embedded network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import seewhy

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


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
