"""Comparison of two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.bulk.bulk_run import BulkRun
from seewhy.errors import UnknownName, UsageError
from seewhy.summary.comparison import compare, has_other_names, to_common_grid
from seewhy.summary.comparison_page import build_comparison_data
from seewhy.summary.map_table import load_map_table
from seewhy.tensors import map_functions
from support.color_runs import Row, copy_run, run_bulk, run_bulk_on


def test_runs_are_compared_by_a_common_method_and_target(home: Path) -> None:
    one = run_bulk(home, "both methods", layers=("features.0",), methods=("layercam", "gradcam"))
    two = run_bulk(home, "one target", layers=("features.0",), methods=("gradcam",), targets=("label",))
    comparison = compare(one, two)
    assert {(table.method, table.target) for table in comparison.tables} == {("gradcam", "label")}
    assert any("gradcam for label at features.0" in text for _, text in build_comparison_data(comparison)["facts"])
    assert any(note.startswith(f"{one.folder}: this run contains 2 methods") for note in comparison.notes)
    other = run_bulk(home, "other method", layers=("features.0",), methods=("layercam",), targets=("predicted",))
    with pytest.raises(UsageError, match="gradcam for label; the second layercam for top1"):
        compare(two, other)
    with pytest.raises(UnknownName):
        compare(one, two, method="layercan")


def test_common_grid_does_not_depend_on_the_order() -> None:
    random = np.random.default_rng(0)
    coarse, fine = (random.normal(size=(5, side, side)).astype(np.float32).clip(0) for side in (4, 14))
    one, two = to_common_grid(coarse, fine), to_common_grid(fine, coarse)
    assert one[0].shape == one[1].shape == (5, 14, 14)
    np.testing.assert_array_equal(one[0], two[1])
    np.testing.assert_array_equal(one[1], two[0])


def test_notes_list_what_limits_the_comparison(run: BulkRun, tmp_path: Path) -> None:
    def change(row: Row) -> None:
        if row["label"] == "red":
            row["view"] = [4.0, 0.0, 28.0, 32.0]
        if row["id"].startswith("00"):
            row["sha256"] = "0" * 64
        if row["label"] == "blue":
            row["label"] = row["label_class"] = row["label_name"] = None

    other = copy_run(run, tmp_path / "other", change)
    comparison = compare(run, other)
    crop_note = "12 images have a different crop; the correlation compares positions in the model's input"
    assert crop_note in comparison.notes
    assert "1 images have the same id but different content" in comparison.notes
    facts = dict(build_comparison_data(comparison)["facts"])
    assert facts[str(run.folder)].endswith("88.9% of 36 correct")
    assert facts[str(other.folder)].endswith("100.0% of 20 correct")
    assert facts["median overlap"] == "100% of the evidence"


def test_distributions_include_only_common_images(run: BulkRun, tmp_path: Path) -> None:
    def rename(row: Row) -> None:
        if row["label"] != "red":
            row["id"] = f"other {row['id']}"

    comparison = compare(run, copy_run(run, tmp_path / "renamed", rename))
    for entry in build_comparison_data(comparison)["statistics"][1:]:
        assert sum(entry["counts"]) == sum(entry["counts2"]) == 12


def test_predictions_are_compared_by_name_if_the_indices_differ(run: BulkRun, tmp_path: Path) -> None:
    def shift_indices(row: Row) -> None:
        for name in ("predicted", "target_class", "label_class"):
            row[name] += 1
        row["target_key"] = str(row["target_class"])

    def remove_names(row: Row) -> None:
        for index, name in (
            ("predicted", "predicted_name"),
            ("target_class", "target_name"),
            ("label_class", "label_name"),
        ):
            row[name] = f"class {row[index]}"

    shifted = copy_run(run, tmp_path / "shifted", shift_indices)
    assert has_other_names(load_map_table(run), load_map_table(shifted)) and compare(run, shifted).agreement == 1
    assert compare(run, copy_run(run, tmp_path / "unnamed", remove_names)).agreement == 1


def test_correlation_and_overlap_equal_direct_computations(run: BulkRun, home: Path) -> None:
    other = run_bulk(home, "layercam to compare", layers=("features.0",), methods=("layercam", "gradcam"), gain=0.5)
    comparison = compare(run, other)
    assert len(comparison.rows[0]) == 36
    one, two = (
        map_functions.rectify(torch.from_numpy(table.maps)).flatten(1).double()
        for table in (load_map_table(run), load_map_table(other, "gradcam"))
    )
    for row in range(36):
        if one[row].sum() and two[row].sum():
            expected = float(torch.corrcoef(torch.stack([one[row], two[row]]))[0, 1])
            assert comparison.correlation[row] == pytest.approx(expected, abs=1e-4)
            overlap = torch.minimum(one[row] / one[row].sum(), two[row] / two[row].sum()).sum()
            assert comparison.overlap[row] == pytest.approx(float(overlap), abs=1e-4)
    same = compare(run, run)
    np.testing.assert_allclose(same.correlation[~np.isnan(same.correlation)], 1, atol=1e-6)


def test_runs_without_a_common_image_are_an_error(run: BulkRun, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "red.png")
    other = run_bulk_on(tmp_path / "red.png", tmp_path / "run")
    with pytest.raises(UsageError, match="contain no image with the same id"):
        compare(run, other)
