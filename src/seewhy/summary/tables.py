"""The whole in numbers: classes, confusions, distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.bulk_run import BulkRun, decode_map
from seewhy.methods.catalog import LINEAR
from seewhy.summary.answers import NUMBERS, Answers, Maps, on_one_grid
from seewhy.summary.normalization import shares

BINS = 32
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ClassRow:
    """The pictures whose map is of one class: their number, mean heat (h, w), and the means of their statistics.

    `right` is the share of those with a label whose predicted class is that of the label, None without any. Of the heat each
    map counts as much, whatever its units: it is in shares of its own sum.
    """

    index: int
    name: str
    members: Indices
    right: float | None
    confidence: float
    mean: Maps
    means: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pictures of one label that were taken for another class.

    `contrast` (h, w) is the mean of the predicted class's map minus the label's, each picture's in shares of the largest
    absolute value of the two: positive where the evidence for the mistake lies. None where the run holds no map of both.
    """

    label: int
    label_name: str
    predicted: int
    predicted_name: str
    members: Indices
    contrast: Maps | None


@dataclass(frozen=True, eq=False)
class Distribution:
    """How many pictures (BINS,) lie between each two of the `edges` (BINS + 1,)."""

    name: str
    edges: NDArray[np.float64]
    counts: Indices
    median: float


def class_rows(answers: Answers) -> list[ClassRow]:
    """A row for each class, those with the most pictures first."""
    heat, classes, right, judged = shares(answers.maps), answers.classes, answers.right, answers.judged
    rows = []
    for index in np.unique(classes):
        members = np.flatnonzero(classes == index)
        own = members[judged[members]]
        sure = [p for at in members if (p := answers.columns["probability"][at]) is not None]
        means = {name: mean(answers.numbers[name][members]) for name in NUMBERS}
        rows.append(
            ClassRow(
                int(index),
                answers.name_of(int(index)) if index >= 0 else answers.target,
                members,
                float(right[own].mean()) if right is not None and len(own) else None,
                float(np.mean(sure)) if sure else float("nan"),
                heat[members].mean(0),
                means,
            )
        )
    return sorted(rows, key=lambda row: (-len(row.members), row.index))


def mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def confusions(run: BulkRun, answers: Answers) -> list[Confusion]:
    """The pairs of label and predicted class that occur, the most frequent first."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for at, (label, said) in enumerate(zip(answers.columns["label_class"], answers.columns["predicted"], strict=True)):
        if label is not None and said is not None and label != said:
            pairs.setdefault((label, said), []).append(at)
    contrasts = contrast_maps(run, answers) if pairs else {}
    found = []
    for (label, said), members in pairs.items():
        known = [contrasts[answers.columns["id"][at]] for at in members if answers.columns["id"][at] in contrasts]
        contrast = on_one_grid(known)[0].mean(0) if known else None
        names = answers.name_of(label), answers.name_of(said)
        found.append(Confusion(label, names[0], said, names[1], np.array(members, np.intp), contrast))
    return sorted(found, key=lambda pair: (-len(pair.members), pair.label, pair.predicted))


def contrast_maps(run: BulkRun, answers: Answers) -> dict[str, Maps]:
    """For wrong pictures, by id: the map of the predicted class minus that of the label's, where the run has both.

    Only of methods that are linear in the score, where that difference is the map of the contrast.
    """
    if answers.method.partition("(")[0] not in LINEAR:
        return {}
    from pyarrow.dataset import field

    target, label, said = field("target_class"), field("label_class"), field("predicted")
    wrong = (field("method") == answers.method) & (label != said) & ((target == label) | (target == said))
    columns = ["id", "label_class", "predicted", "target_class", "layers", "shapes", "lo", "hi", "maps"]
    both: dict[str, dict[str, Maps]] = {}
    for batch in run.batches(columns=columns, where=wrong & field("error").is_null()):
        for row in batch.to_pylist():
            if answers.layer in row["layers"]:
                role = "predicted" if row["target_class"] == row["predicted"] else "label"
                both.setdefault(row["id"], {})[role] = decode_map(row, answers.layer, run.store)
    found = {}
    for name, maps in both.items():
        if len(maps) == 2:
            top = max(float(np.abs(one).max()) for one in maps.values())
            found[name] = (maps["predicted"] - maps["label"]) / top if top > 0 else maps["label"] * 0
    return found


def distributions(answers: Answers, rows: Indices | None = None) -> list[Distribution]:
    """Of each statistic that is known, of all pictures or of some `rows`; shares and places lie in [0, 1]."""
    found = []
    for name, every in answers.statistics.items():
        numbers = every if rows is None else every[rows]
        known = numbers[np.isfinite(numbers)]
        if len(known):
            counts, edges = np.histogram(known.clip(0, 1), BINS, (0, 1))
            found.append(Distribution(name, edges, counts.astype(np.intp), float(np.median(known))))
    return found
