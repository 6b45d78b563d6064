"""A planted shortcut, from images to findings: the summary must find it, and must have no findings without one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.models.loading import load_model
from seewhy.summary.outliers import EDGE
from seewhy.summary.run_summary import RunSummary, summarize
from seewhy.summary.summary_page import build_summary_data
from support.paths import DATA
from support.planted_shortcut import Experiment, Kind, plant_shortcut

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"the data folder does not exist ({DATA}; set SEEWHY_DATA)")

Run = Callable[[Kind], tuple[Experiment, RunSummary]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return each kind of experiment with the summary of a bulk run over it. Cached."""

    def run_experiment(kind: Kind) -> tuple[Experiment, RunSummary]:
        home = tmp_path_factory.mktemp(kind)
        experiment = plant_shortcut(home / "images", 0, kind)
        experiment.write_table(home / "images.csv")
        loaded = load_model(experiment.model, preprocess=experiment.preprocess, labels=["plain", "special"])
        execution = Execution(workers=0, batch_size=8)
        run_job(loaded, [str(home / "images.csv")], home / "run", BulkSettings(), execution, quiet=True)
        return experiment, summarize(BulkRun.read(home / "run"))

    return cache(run_experiment)


def test_tagged_images_are_one_finding(run: Run) -> None:
    experiment, summary = run("tag")
    assert len(experiment.tagged) == 60
    outliers = summary.ids(summary.outliers[EDGE].indices[:30])
    assert len(outliers) == 30 and experiment.tagged_fraction(outliers) >= 0.9
    (finding,) = summary.findings
    members = summary.ids(finding.indices)
    assert len(members) >= 45 and experiment.tagged_fraction(members) >= 0.9
    assert finding.location == "bottom right" and '"special"' in finding.sentence
    data = build_summary_data(summary)
    assert data["findings"][0]["text"].startswith(finding.sentence)
    border = next(entry for entry in data["statistics"] if entry["name"] == "border")
    assert experiment.tagged_fraction([data["images"][number]["id"] for number in border["high"]]) >= 0.9


@pytest.mark.full
@pytest.mark.parametrize("kind", ["clean", "easy"])
def test_there_is_no_finding_if_the_model_does_not_rely_on_the_tag(kind: Kind, run: Run) -> None:
    experiment, summary = run(kind)
    assert len(experiment.tagged) == (0 if kind == "clean" else pytest.approx(sum(experiment.labels) / 2, abs=1))
    assert summary.findings == []
    data = build_summary_data(summary)
    assert data["findings"] == [] and data["no_findings"].startswith("No group of images")
    if kind == "clean":
        assert float((summary.table.statistics["corner"] > 0.25).mean()) < 0.1


@pytest.mark.full
def test_removing_the_tag_changes_predictions_where_it_is_found(run: Run) -> None:
    """The ground truth of a finding, compared with the easy task as the control."""
    assert run("tag")[0].changed_fraction() > 0.2 > run("easy")[0].changed_fraction()
