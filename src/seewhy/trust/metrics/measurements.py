"""`Measurements`: the metrics of all maps of an explanation, as a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seewhy.errors import ChoiceError, UnknownName
from seewhy.explanation.curves import RemovalCurve, RemovalCurves
from seewhy.explanation.data import MapKey
from seewhy.explanation.result import Explanation


@dataclass(frozen=True)
class MapMeasurement:
    """The metrics of one map.

    Attributes:
        image: Position of the image in the batch.
        method, target, layer: The map.
        values: Value by column; NaN if it is not defined.
        reasons: By column, why a value is not defined.
    """

    image: int
    method: str
    target: str
    layer: str
    values: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON; values that are not defined are null, with their reason."""
        values = {name: None if math.isnan(value) else value for name, value in self.values.items()}
        return {**dataclasses.asdict(self), "values": values, "reasons": dict(self.reasons)}


@dataclass(frozen=True, eq=False)
class Measurements:
    """The metrics of all maps of an explanation.

    Attributes:
        columns: Names of the metrics, with the filler if there are several: "srg(mean)".
        rows: One for each image and map.
        curves: By map, for each image: the curves of the removal test, by filler.
        random_curves: By target, for each image: the mean curve of random orders, by filler.
        notes: What concerns all rows, such as a filler that is not usable.
    """

    columns: tuple[str, ...]
    rows: tuple[MapMeasurement, ...]
    curves: Mapping[MapKey, tuple[Mapping[str, RemovalCurves], ...]] = field(default_factory=dict)
    random_curves: Mapping[str, tuple[Mapping[str, RemovalCurve], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def value(
        self,
        column: str | None = None,
        *,
        method: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        image: int | None = None,
    ) -> float:
        """Return one value.

        Args:
            column: Name of the metric; optional if there is one.
            method, target, layer, image: The map; each is optional if there is one.

        Returns:
            The value; NaN if it is not defined.

        Raises:
            UnknownName: No column has this name.
            ChoiceError: No map matches, or several do.
        """
        if column is None and len(self.columns) == 1:
            (column,) = self.columns
        if column not in self.columns:
            raise UnknownName("metric", str(column), self.columns, hint=f"Measured: {', '.join(self.columns)}.")
        chosen = {"method": method, "target": target, "layer": layer, "image": image}
        rows = [
            row for row in self.rows
            if all(value is None or getattr(row, name) == value for name, value in chosen.items())
        ]  # fmt: skip
        if len(rows) != 1:
            names = [f"image {row.image}, {row.method}, target {row.target}, {row.layer}" for row in rows or self.rows]
            raise ChoiceError(
                f"{len(rows)} maps match: give method=, target=, layer= and image= of one of them.", names
            )
        return rows[0].values[column]

    def attached_to(self, e: Explanation) -> Explanation:
        """Return the explanation with the curves, which its page draws."""
        return dataclasses.replace(e, curves=self.curves, random_curves=self.random_curves)

    def to_dict(self) -> dict[str, Any]:
        """Return columns, rows and notes for JSON."""
        return {"columns": list(self.columns), "rows": [row.to_dict() for row in self.rows], "notes": list(self.notes)}

    def to_csv(self) -> str:
        """Return the table as CSV; values that are not defined are empty."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "method", "target", "layer", *self.columns])
        for row in self.rows:
            values = ["" if math.isnan(row.values[name]) else f"{row.values[name]:.6g}" for name in self.columns]
            table.writerow([row.image, row.method, row.target, row.layer, *values])
        return text.getvalue()
