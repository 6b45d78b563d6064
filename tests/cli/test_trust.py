"""`seewhy trust` and `seewhy metrics`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from support.command import CHELSEA, COFFEE, run

FEW = ("--layers", "blocks.4.2,bn2", "--fillers", "mean")


def test_the_table_is_printed_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "trust", COFFEE, *FEW)
    assert code == 0
    assert "bn2" in out and "explained" in out and "metrics.csv, metrics.json" in out
    rows = list(csv.DictReader(Path("cam/coffee/metrics.csv").read_text().splitlines()))
    assert [row["layer"] for row in rows] == ["blocks.4.2", "bn2"]
    assert float(rows[1]["explained_fraction"]) == pytest.approx(1, abs=1e-3)  # exact at a mean-pooled layer
    record = json.loads(Path("cam/coffee/metrics.json").read_text())
    assert record["rows"][1]["values"]["srg"] == pytest.approx(float(rows[1]["srg"]), rel=1e-4)
    saved = json.loads(Path("cam/coffee/explanation.json").read_text())
    assert saved["provenance"]["command"].startswith("seewhy trust ")
    assert "--fillers mean" in saved["provenance"]["command"] and "check" in saved["maps"][0]


def test_a_second_run_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    for names in ("srg", "sparseness"):
        assert run(capsys, "trust", COFFEE, "--layers", "bn2", "--metrics", names, "--fillers", "mean")[0] == 0
    assert Path("cam/coffee/metrics.csv").read_text().startswith("image,method,target,layer,sparseness\n")
    assert run(capsys, COFFEE, "--layers", "bn2")[0] == 0  # the table does not belong to this run
    assert not Path("cam/coffee/metrics.csv").exists()


def test_several_images_end_with_means(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "trust", COFFEE, CHELSEA, "--layers", "bn2", "--metrics", "complexity,increase")
    assert code == 0 and "Means of 2 images ± standard error" in out
    values = [
        float(next(csv.DictReader(Path(f"cam/{name}/metrics.csv").read_text().splitlines()))["complexity"])
        for name in ("coffee", "chelsea")
    ]
    mean, error = sum(values) / 2, abs(values[0] - values[1]) / 2
    assert f"{mean:.2f} ± {error:.2f}" in out


def test_json_contains_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "trust", COFFEE, "--layers", "bn2", "--metrics", "complexity,sparseness", "--json")
    record = json.loads(out)
    assert code == 0 and record["metrics"]["columns"] == ["complexity", "sparseness"]
    assert 0 < record["metrics"]["rows"][0]["values"]["complexity"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metrics", "sgr"), "no metric 'sgr' - did you mean 'srg'?"),
        (("--fillers", "blurry"), "no filler 'blurry' - did you mean 'blur'?"),
        (("--metrics", "srg", "road"), "separate values with commas: --metrics srg,road"),
    ],
)
def test_a_usage_error_writes_nothing(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    code, out, err = run(capsys, "trust", COFFEE, *words)
    assert (code, out) == (2, "") and message in " ".join(err.split())
    assert not Path("cam").exists()


def test_no_image_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "trust")
    assert code == 2 and "seewhy trust bus.jpg" in err


def test_files_of_other_programs_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cam/coffee").mkdir(parents=True)
    Path("cam/coffee/metrics.json").write_text("mine")
    code, _, _ = run(capsys, "trust", COFFEE, *FEW)
    assert code == 2 and Path("cam/coffee/metrics.json").read_text() == "mine"


def test_metrics_are_listed_with_their_traps(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "metrics")
    assert code == 0 and out.count("Trap: ") == out.count("Cost: ") > 20
    code, out, _ = run(capsys, "metrics", "srg", "--json")
    (card,) = json.loads(out)
    assert code == 0 and card["better"] == "higher" and card["uses_filler"] is True
    code, _, err = run(capsys, "metrics", "roar")
    assert code == 2 and "no metric 'roar'" in err and "road" in err
