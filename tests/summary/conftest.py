"""A dataset of colored spots and a bulk run over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from seewhy.bulk.bulk_run import BulkRun
from support.color_runs import run_bulk, write_dataset


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("color_runs")
    write_dataset(home)
    return home


@pytest.fixture(scope="session")
def run(home: Path) -> BulkRun:
    return run_bulk(home, "run", layers=("features.0",))
