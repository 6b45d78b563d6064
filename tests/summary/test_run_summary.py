"""The numbers of a summary, against independent computations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.bulk.bulk_run import BulkRun
from seewhy.errors import UnknownName, UsageError
from seewhy.summary.comparison import compare
from seewhy.summary.comparison_page import build_comparison_data
from seewhy.summary.map_table import load_map_table
from seewhy.summary.run_summary import summarize
from seewhy.summary.summary_page import build_summary_data
from support.color_runs import LABELS, Row, copy_run, keep_layers, make_model, run_bulk, run_bulk_on

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_class_rows_equal_means_over_single_explanations(run: BulkRun, home: Path) -> None:
    summary = summarize(run)
    table = summary.table
    assert len(table) == 36 and len(table.failed) == 2 and table.target == "top1"
    expected: dict[str, list[Any]] = {}
    for name in table.columns["id"]:
        e = seewhy.explain(make_model(), home / name, layers="features.0")
        positive = e.map().clamp(min=0).double()
        normalized = positive / positive.sum() if positive.sum() > 0 else positive * 0
        expected.setdefault(e.top(1)[0][1], []).append((name, normalized))
    order = sorted(expected, key=lambda name: (-len(expected[name]), LABELS.index(name)))
    assert [row.name for row in summary.classes] == order
    labels = dict(zip(table.columns["id"], table.columns["label"], strict=True))
    for row in summary.classes:
        names, maps = zip(*expected[row.name], strict=True)
        assert summary.ids(row.members) == list(names)
        np.testing.assert_allclose(row.mean, torch.stack(maps).mean(0).numpy(), atol=2e-4)
        assert row.accuracy == pytest.approx(np.mean([labels[name] == row.name for name in names]))
        border = [table.statistics["border"][table.columns["id"].index(name)] for name in names]
        assert row.mean_statistics["border"] == pytest.approx(np.mean(border))


def test_contrast_of_a_confusion_is_the_difference_of_two_maps(run: BulkRun, home: Path) -> None:
    summary = summarize(run)
    (pair,) = summary.confusions
    assert (pair.label_name, pair.predicted_name, len(pair.members)) == ("blue", "green", 4)
    contrasts = []
    for name in summary.ids(pair.members):
        e = seewhy.explain(make_model(), home / name, layers="features.0", targets=["green", "blue"])
        green, blue = e.map(target="green"), e.map(target="blue")
        contrasts.append((green - blue) / max(green.abs().max(), blue.abs().max()))
    np.testing.assert_allclose(pair.contrast, torch.stack(contrasts).mean(0).numpy(), atol=2e-3)
    assert np.abs(pair.contrast).max() > 0.1


def test_contrast_needs_both_maps_and_a_linear_method(home: Path) -> None:
    predicted_only = summarize(run_bulk(home, "predicted only", layers=("features.0",), targets=("predicted",)))
    assert predicted_only.confusions[0].contrast is None
    tables = build_summary_data(predicted_only)["tables"]
    description = next(table for table in tables if table["id"] == "confusions")["description"]
    assert "--targets predicted,label" in description
    not_linear = summarize(run_bulk(home, "layercam", layers=("features.0",), methods=("layercam",)))
    assert not_linear.confusions[0].contrast is None


def test_summary_shows_one_method_target_and_layer(home: Path) -> None:
    run = run_bulk(home, "several", layers=("features.0", "features.1"), methods=("gradcam", "hirescam"))
    default = load_map_table(run)
    assert (default.method, default.target, default.layer) == ("gradcam", "top1", "features.1")
    assert "this run contains 2 methods; this summary shows gradcam (--method)" in default.notes
    table = load_map_table(run, "hirescam", "label", "features.0")
    ids, maps = run.maps("hirescam", "label", "features.0")
    assert ids == table.columns["id"]
    np.testing.assert_array_equal(maps, table.maps)
    for choice in ({"method": "gradcan"}, {"target": "top9"}, {"layer": "features.7"}):
        with pytest.raises(UnknownName):
            load_map_table(run, **choice)


def test_accuracy_depends_on_the_prediction_for_any_target(run: BulkRun) -> None:
    summary = summarize(run, target="label")
    accuracy = {row.name: row.accuracy for row in summary.classes}
    assert accuracy["red"] == 1 and accuracy["green"] == 1 and accuracy["blue"] == pytest.approx(12 / 16)
    assert dict(summary.facts())["correct"] == "88.9% of 36 labeled images"


def test_images_without_a_prediction_are_neither_correct_nor_wrong(run: BulkRun, tmp_path: Path) -> None:
    def remove_prediction(row: Row) -> None:
        row["predicted"] = row["predicted_name"] = row["confidence"] = None

    def remove_unless_red(row: Row) -> None:
        if row["label"] != "red":
            remove_prediction(row)

    some = summarize(copy_run(run, tmp_path / "some", remove_unless_red))
    assert dict(some.facts())["correct"] == "100.0% of 12 labeled images"
    assert not some.confusions and next(row for row in some.classes if row.name == "green").accuracy is None

    none = copy_run(run, tmp_path / "none", remove_prediction)
    assert load_map_table(none).correct is None and "correct" not in dict(summarize(none).facts())
    comparison = compare(run, none)
    assert comparison.agreement is None
    build_comparison_data(comparison)


def test_rows_without_the_layer_are_skipped_with_a_note(home: Path, tmp_path: Path) -> None:
    both = run_bulk(home, "two layers", layers=("features.0", "features.1"))

    def remove_layer(row: Row) -> None:
        if row["label"] == "red":
            keep_layers(row, lambda layer: layer == "features.0")

    run = copy_run(both, tmp_path / "run", remove_layer)
    table = load_map_table(run, layer="features.1")
    assert len(table) == 24 and "red" not in table.columns["label"]
    assert "12 images have no map at features.1" in table.notes
    assert len(load_map_table(run, layer="features.0")) == 36
    with pytest.raises(UnknownName):
        load_map_table(run, layer="features.2")


def test_sentence_of_a_finding_depends_on_the_target(run: BulkRun, monkeypatch: pytest.MonkeyPatch) -> None:
    relations: list[str] = []
    monkeypatch.setattr("seewhy.summary.run_summary.find_shortcuts", lambda *args: relations.append(args[-1]) or [])
    for target in ("top1", "label"):
        summarize(run, target=target)
    assert relations == ["predicted as", "labeled"]


def test_class_names_are_collected_once(run: BulkRun) -> None:
    table = load_map_table(run)
    assert table.class_name(0) == "red" and table.class_name(9) == "class 9"
    assert table.class_names is table.class_names


def test_blank_maps_and_maps_of_one_cell_have_a_page(run: BulkRun, tmp_path: Path) -> None:
    def reduce_to_one_cell(row: Row) -> None:
        row["shapes"], row["maps"] = [[1, 1]], [np.ones(1, np.float16).tobytes()]

    def blank(row: Row) -> None:
        row["maps"] = [bytes(len(row["maps"][0]))]
        for name in ("peak_x", "center_x", "spread", "border", "corner", "inside"):
            row[name] = [None]

    for name, change in (("cell", reduce_to_one_cell), ("blank", blank)):
        copy = copy_run(run, tmp_path / name, change)
        for data in (build_summary_data(summarize(copy)), build_comparison_data(compare(copy, copy))):
            assert all(entry["median"] is not None for entry in data["statistics"])
            assert "correlation" not in [entry["name"] for entry in data["statistics"]]
            json.dumps(data, allow_nan=False)


def test_outliers_of_border_and_corner_are_counted(run: BulkRun) -> None:
    summary = summarize(run)
    border = next(entry for entry in build_summary_data(summary)["statistics"] if entry["name"] == "border")
    assert border["high_title"] == "Farthest from the median: evidence at the border or in a corner"
    count = summary.outliers["edge"].count
    assert (
        f"{count} of 36 images are more than 3.5 robust standard deviations above the median" in border["description"]
    )


def test_run_without_maps_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(UsageError, match="contains no explained image"):
        summarize(run_bulk_on(tmp_path / "broken.png", tmp_path / "run"))


def test_run_of_one_image_has_a_page(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "red.png")
    summary = summarize(run_bulk_on(tmp_path / "red.png", tmp_path / "run"))
    assert build_summary_data(summary)["facts"][0] == ("images", "1")


def test_incomplete_run_shows_its_progress(home: Path) -> None:
    run_bulk(home, "incomplete", layers=("features.0",)).files[-1].unlink()
    assert ("progress", "3 of 4 parts") in summarize(BulkRun.read(home / "incomplete")).facts()
