"""What covering an image does, in the JSON record of a saved explanation: checks, drops and removal curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from seewhy import storage
from seewhy.explanation.checks import MapCheck
from seewhy.explanation.curves import Array, RemovalCurve, RemovalCurves
from seewhy.explanation.data import ExplanationData
from seewhy.explanation.windows import WindowDrops

if TYPE_CHECKING:
    from seewhy.explanation.record_schema import CheckRecord, CurveRecord, CurvesRecord, DropsRecord


def build_effects(e: ExplanationData) -> dict[str, Any]:
    """Return the drops and the random curves of one image by target; fields without any are omitted."""
    drops = {target: build_drops(found[0]) for target, found in e.drops.items()}
    curves = {
        target: {filler: build_curve(curve) for filler, curve in found[0].items()}
        for target, found in e.random_curves.items()
    }
    fields = {"drops": drops, "random_curves": curves}
    return {name: value for name, value in fields.items() if value}


def build_drops(drops: WindowDrops) -> dict[str, Any]:
    """Return the drops of one image as JSON."""
    fields = {
        "values": list(drops.values),
        "everything": storage.finite_or_none(drops.everything),
        "reason": drops.reason,
    }
    return {name: value for name, value in fields.items() if value not in ([], None, "")}


def build_curves(curves: Mapping[str, RemovalCurves]) -> dict[str, Any]:
    """Return the curves of one map by filler as JSON."""
    return {
        filler: {"most_first": build_curve(one.most_first), "least_first": build_curve(one.least_first)}
        for filler, one in curves.items()
    }


def build_curve(curve: RemovalCurve) -> dict[str, Any]:
    """Return one curve as JSON; numbers that are not finite are null."""
    fields = {"fractions": curve.fractions, "scores": curve.scores, "mass": curve.mass}
    return {name: [storage.finite_or_none(value) for value in values] for name, values in fields.items()}


def as_check(record: CheckRecord) -> MapCheck:
    """Convert the record of a check."""
    r, low, high, p = (nan_if_none(number) for number in (record.r, record.low, record.high, record.p))
    return MapCheck(record.verdict, r, low, high, p, record.reason)


def as_drops(record: DropsRecord) -> WindowDrops:
    """Convert the record of drops."""
    return WindowDrops(record.values, nan_if_none(record.everything), record.reason)


def as_curves(records: Mapping[str, CurvesRecord]) -> dict[str, RemovalCurves]:
    """Convert the records of the curves of one map."""
    return {
        filler: RemovalCurves(as_curve(one.most_first), as_curve(one.least_first)) for filler, one in records.items()
    }


def as_curve(record: CurveRecord) -> RemovalCurve:
    """Convert the record of one curve."""
    return RemovalCurve(as_array(record.fractions), as_array(record.scores), as_array(record.mass))


def as_array(values: Iterable[float | None]) -> Array:
    return np.array([nan_if_none(value) for value in values])


def nan_if_none(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN
