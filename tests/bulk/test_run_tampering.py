"""Runs that were tampered with at random: every reader and a resumed job end in a result or in one line."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import seewhy
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.export import KINDS, export
from seewhy.errors import UsageError
from seewhy.summary import write_summary
from support.bulk_jobs import start
from support.run_tampering import tamper_run

SEEDS = range(10)


def try_readers(
    small: seewhy.LoadedModel, folder: Path, photos: Path, out: Path, generator: random.Random
) -> list[str]:
    """Read, summarize, export and resume a run. Return the messages of usage errors; other errors are raised."""
    steps = (
        lambda: seewhy.read_run(folder).table.to_pylist(),
        lambda: write_summary(BulkRun.read(folder), out / "summary"),
        lambda: export(BulkRun.read(folder), out, generator.choice(list(KINDS))),
        lambda: start(small, photos, folder),
    )
    messages = []
    for step in steps:
        try:
            step()
        except UsageError as error:
            messages.append(str(error))
    return messages


def test_tampered_runs_end_in_a_result_or_in_one_line(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    start(small, photos, tmp_path / "run")
    refused = 0
    for seed in SEEDS:
        generator = random.Random(seed)
        folder = tmp_path / f"run {seed}"
        shutil.copytree(tmp_path / "run", folder)
        description = tamper_run(folder, generator)
        messages = try_readers(small, folder, photos, tmp_path / f"out {seed}", generator)
        assert all("\n" not in message and len(message) < 1500 for message in messages), (seed, description)
        refused += bool(messages)
    assert refused >= len(SEEDS) // 3


@pytest.mark.parametrize("seed", [3, 17])
def test_tampering_is_reproducible(seed: int, small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    start(small, photos, tmp_path / "run")
    descriptions = []
    for name in ("a", "b"):
        shutil.copytree(tmp_path / "run", tmp_path / name)
        descriptions.append(tamper_run(tmp_path / name, random.Random(seed)))
    assert descriptions[0] == descriptions[1]
