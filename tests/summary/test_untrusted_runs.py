"""Runs with unusual but valid rows have summaries, and the photos that a summary shows are those that were explained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.export import KINDS, export
from seewhy.summary import write_comparison, write_summary
from seewhy.summary.map_table import load_map_table
from seewhy.summary.run_summary import summarize
from seewhy.summary.summary_page import build_summary_data
from seewhy.summary.thumbnails import photo_file, read_photo
from support.color_runs import Row, copy_run, run_bulk_on

NAN = float("nan")


@pytest.fixture
def red(tmp_path: Path) -> BulkRun:
    """A run of two images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (32, 32), (200, 10 * number, 10)).save(folder / f"{number}.png")
    return run_bulk_on(folder, tmp_path / "run")


def set_values(**values: Any) -> Callable[[Row], None]:
    return lambda row: row.update(values)


UNUSUAL: dict[str, Callable[[Row], None]] = {
    "unknown numbers": set_values(
        score=NAN, probability=NAN, confidence=NAN, border=[NAN], corner=[None], inside=[NAN]
    ),
    "no numbers": set_values(probability=None, confidence=None, predicted=None, predicted_name=None),
    "huge class": set_values(predicted=2**31 - 1, target_class=2**31 - 1, label_class=2**31 - 2, label="x"),
    "no names": set_values(predicted_name=None, target_name="", label_name=None, label_class=5, predicted=4),
    "long names": set_values(predicted_name="x" * 5000, target_name="<b>\x1b[2J\u202e" * 900, label="\0\x9b"),
    "same id": set_values(id="../a\0b"),
    "huge range": set_values(lo=[-3.4e38], hi=[3.4e38]),
    "blank": set_values(lo=[0.0], hi=[0.0]),
    "tiny view": set_values(view=[0.0, 0.0, 0.002, 0.002]),
    "far view": set_values(view=[-1e9, -1e9, 1e9, 1e9]),
    "other photo": set_values(width=10, height=20),
    "thin input": set_values(input=[1, 2**15]),
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_rows_have_summaries_and_exports(name: str, red: BulkRun, tmp_path: Path) -> None:
    run = copy_run(red, tmp_path / "copy", UNUSUAL[name])
    write_summary(run, tmp_path / "out")
    write_comparison(red, run if name != "same id" else red, tmp_path / "out")
    for kind in KINDS:
        export(run, tmp_path / kind, kind)
        for path in (tmp_path / kind).glob("*.json"):
            json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)  # NaN is not JSON


def test_photo_that_was_replaced_is_not_shown(red: BulkRun, tmp_path: Path) -> None:
    """The path of a run could name any file: a pipe, a device, a large file or another image."""
    table = load_map_table(red)
    file = photo_file(table, 0)
    assert read_photo(file) is not None
    other = tmp_path / "other.png"
    Image.new("RGB", (32, 32), (1, 2, 3)).save(other)
    pipe, large = tmp_path / "pipe", tmp_path / "large.png"
    os.mkfifo(pipe)
    with open(large, "wb") as sparse:
        sparse.truncate(10 * 2**30)
    for path in (
        other,
        pipe,
        large,
        "/dev/zero",
        "/etc/passwd",
        tmp_path,
        "a\0b",
        "x" * 5000,
        "/" * 100_000,
        "a.tar/b",
    ):
        assert read_photo(file._replace(path=str(path))) is None
    assert read_photo(file._replace(path=str(large), size=10 * 2**30)) is None


def test_summary_counts_photos_that_were_replaced(red: BulkRun, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (1, 2, 3)).save(tmp_path / "photos" / "0.png")
    notes = build_summary_data(summarize(red))["notes"]
    assert "1 photos were not found; their thumbnails show the heatmap alone" in notes
