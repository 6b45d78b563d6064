"""Removal curves in an explanation: kept by indexing, saved, loaded, and validated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seewhy
from seewhy.errors import UsageError
from seewhy.explanation.curves import RemovalCurve, RemovalCurves, area
from support.removal import with_curves


@pytest.fixture
def e() -> seewhy.Explanation:
    return with_curves(seewhy.explain(make_network(), torch.rand(2, 3, 24, 32), layers="0", targets=["top1", 2]))


def make_network() -> torch.nn.Module:
    torch.manual_seed(0)
    pool = torch.nn.AdaptiveAvgPool2d(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5), torch.nn.ReLU(), pool, torch.nn.Flatten(), torch.nn.Linear(6, 4)
    )


def assert_equal(one: RemovalCurve, other: RemovalCurve) -> None:
    for name in ("fractions", "scores", "mass"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_area_and_interpolation() -> None:
    curve = RemovalCurve(np.array([0, 0.5, 1]), np.array([4.0, 1.0, 0.0]), np.array([1.0, 0.2, 0.0]))
    assert curve.area == pytest.approx(0.25 * 5 + 0.25 * 1) == area(curve.scores, curve.fractions)
    assert curve.at(np.array([0.25, 0.75])).tolist() == [2.5, 0.5]


def test_an_explanation_has_no_curves_unless_they_are_added() -> None:
    e = seewhy.explain(make_network(), torch.rand(1, 3, 24, 32), layers="0")
    assert e.curves == {} and e.random_curves == {} and e.drops == {}
    assert not {"drops", "random_curves"} & e[0].to_dict().keys() and "curves" not in e[0].to_dict()["maps"][0]


def test_indexing_keeps_the_curves_of_the_image(e: seewhy.Explanation) -> None:
    for image in range(2):
        one = e[image]
        assert one.curves.keys() == one.maps.keys() and set(one.random_curves) == set(one.targets)
        for (method, target, layer), found in e.curves.items():
            key = one.key(method, 2 if target == "2" else "top1", layer)
            assert len(one.curves[key]) == 1
            for filler, curves in found[image].items():
                if target == "2":
                    assert one.curves[key][0][filler] is curves


def test_curves_are_saved_and_loaded(e: seewhy.Explanation, tmp_path: Path) -> None:
    one = e[1]
    one.save(tmp_path / "run")
    loaded = seewhy.load_explanation(tmp_path / "run")
    assert loaded.curves.keys() == one.curves.keys() and loaded.random_curves.keys() == one.random_curves.keys()
    for key, (fillers,) in one.curves.items():
        assert loaded.curves[key][0].keys() == fillers.keys() == {"blur", "mean"}
        for filler, curves in fillers.items():
            assert isinstance(loaded.curves[key][0][filler], RemovalCurves)
            assert_equal(loaded.curves[key][0][filler].most_first, curves.most_first)
            assert_equal(loaded.curves[key][0][filler].least_first, curves.least_first)
    for target, (fillers,) in one.random_curves.items():
        for filler, curve in fillers.items():
            assert_equal(loaded.random_curves[target][0][filler], curve)
    loaded.save(tmp_path / "again")
    records = [json.loads((tmp_path / name / "explanation.json").read_text()) for name in ("run", "again")]
    assert records[0]["random_curves"] == records[1]["random_curves"]


def test_numbers_that_are_not_finite_are_saved_as_null(e: seewhy.Explanation, tmp_path: Path) -> None:
    one = e[0]
    blank = RemovalCurve(np.array([0.0, 1.0]), np.array([1.0, np.inf]), np.full(2, np.nan))
    key = next(iter(one.curves))
    dataclasses.replace(one, curves={key: ({"blur": RemovalCurves(blank, blank)},)}).save(tmp_path / "run")
    loaded = seewhy.load_explanation(tmp_path / "run").curves[key][0]["blur"].most_first
    assert loaded.scores[0] == 1 and np.isnan(loaded.scores[1]) and np.isnan(loaded.mass).all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda curve: curve["scores"].pop(), "its lists have several lengths"),
        (lambda curve: curve["fractions"].__setitem__(0, 0.05), "they do not increase from 0 to 1"),
        (lambda curve: curve["fractions"].__setitem__(1, 0.99), "they do not increase from 0 to 1"),
        (lambda curve: curve["fractions"].__setitem__(1, 7), "fractions"),
        (lambda curve: curve.__setitem__("fractions", []), "fractions"),
        (lambda curve: curve["scores"].__setitem__(0, "high"), "scores"),
    ],
)
def test_damaged_curves_are_named(e: seewhy.Explanation, tmp_path: Path, change: Any, field: str) -> None:
    e[0].save(tmp_path / "run")
    path = tmp_path / "run" / "explanation.json"
    text = path.read_text()
    for place in ("maps", "random_curves"):
        record = json.loads(text)
        curves = record["maps"][0]["curves"]["blur"]["most_first"]
        change(curves if place == "maps" else next(iter(record["random_curves"].values()))["blur"])
        path.write_text(json.dumps(record))
        with pytest.raises(UsageError, match=field) as error:
            seewhy.load_explanation(tmp_path / "run")
        assert place in str(error.value) and "\n" not in str(error.value)
    record = json.loads(text)
    record["random_curves"]["zebra"] = {}
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="random_curves: 'zebra' is not one of its targets"):
        seewhy.load_explanation(tmp_path / "run")
