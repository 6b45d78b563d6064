"""A planted shortcut, from pictures to findings: the summary must find it, and must not cry wolf where there is none."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.models.loading import load_model
from seewhy.summary.document import Summary, document, summarize
from seewhy.summary.outliers import EDGE
from support.paths import DATA
from support.planted_shortcut import Kind, Planted, pictures, plant

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"the data folder is absent ({DATA}; set SEEWHY_DATA)")

Runs = Callable[[Kind], tuple[Planted, Summary]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """For each kind of experiment its pictures, and what the summary of a run over them found; made once."""
    return cache(lambda kind: whole(tmp_path_factory.mktemp(kind), kind))


def whole(home: Path, kind: Kind, seed: int = 0) -> tuple[Planted, Summary]:
    made = plant(home / "pictures", seed, kind)
    rows = [(f"pictures/{name}", label) for name, label in zip(made.names, made.labels, strict=True)]
    with open(home / "pictures.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    loaded = load_model(made.model, preprocess=made.preprocess, labels=["plain", "special"])
    run_job(
        loaded, [str(home / "pictures.csv")], home / "run", BulkSettings(), Execution(workers=0, batch_size=8), quiet=True
    )
    return made, summarize(BulkRun.read(home / "run"))


def tagged_share(made: Planted, ids: list[str]) -> float:
    return sum(Path(name).name in made.tagged for name in ids) / len(ids)


def test_the_tag_is_found_and_its_pictures_are_in_a_cluster_of_their_own(runs: Runs) -> None:
    made, summary = runs("tag")
    assert len(made.tagged) == 60
    first = summary.ids(summary.outliers[EDGE].indices[:30])
    assert len(first) == 30
    assert tagged_share(made, first) >= 0.9
    (finding,) = summary.findings
    members = summary.ids(finding.indices)
    assert tagged_share(made, members) >= 0.9
    assert len(members) >= 45  # of the 60
    assert finding.place == "bottom right"
    assert "special" in finding.sentence
    page = document(summary)
    assert page["findings"][0]["text"].startswith(finding.sentence)
    border = next(entry for entry in page["statistics"] if entry["name"] == "border")
    shown = [page["pictures"][number]["id"] for number in border["high"]]
    assert tagged_share(made, shown) >= 0.9


@pytest.mark.parametrize("kind", ["clean", "easy"])
def test_nothing_is_found_where_the_network_goes_by_no_tag(kind: Kind, runs: Runs) -> None:
    made, summary = runs(kind)
    assert len(made.tagged) == (
        0 if kind == "clean" else pytest.approx(len([one for one in made.labels if one]) / 2, abs=1)
    )
    assert summary.findings == []
    page = document(summary)
    assert page["findings"] == [] and page["quiet"].startswith("Nothing.")
    if kind == "clean":
        corner = summary.answers.numbers["corner"]
        assert float((corner > 0.25).mean()) < 0.1  # and hardly a picture is answered from a corner


def test_the_network_does_go_by_the_tag_where_it_is_found(runs: Runs) -> None:
    """The truth that a finding points at: taking the tag away changes the answer, more often than in the easy control."""
    plain = dict(zip(*pictures()[:2], strict=True))
    flips = {}
    for kind in ("tag", "easy"):
        made = runs(kind)[0]
        names = sorted(made.tagged)
        with_tag = made.inputs()[[made.names.index(name) for name in names]]
        without = torch.cat([made.preprocess(plain[name])[0] for name in names])
        with torch.inference_mode():
            flips[kind] = float((made.model(with_tag).argmax(1) != made.model(without).argmax(1)).float().mean())
    assert flips["tag"] > 0.2 > flips["easy"]
