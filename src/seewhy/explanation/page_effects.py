"""What the page shows of covering an image: the measured map, the windows with their drops, and the removal curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy.explanation.curves import Array, RemovalCurve
from seewhy.explanation.data import ExplanationData, MapKey
from seewhy.explanation.window_fit import GRID, fit_map
from seewhy.explanation.windows import MODES
from seewhy.places.region import Region
from seewhy.tensors import map_functions
from seewhy.viewer import PageMap, pack
from seewhy.viewer.pages import MEASURED

DIGITS = 4  # of a score on the page


def measured_layer(e: ExplanationData) -> list[dict[str, Any]]:
    """Return the entry of the measured map in the list of layers; none if no target has one."""
    if not any(has_map(e, target) for target in e.targets):
        return []
    kind = f"coarse: regions of {Fraction(min(mode.side for mode in MODES))} of the side"
    fields = {"name": "measured map", "kind": kind, "grid": [GRID, GRID], "channels": 0, "note": ""}
    return [{**fields, "suggested": False, "measured": True}]


def has_map(e: ExplanationData, target: str) -> bool:
    return target in e.drops and not e.drops[target][0].reason


def measured_page_maps(e: ExplanationData, region: Region | None) -> list[PageMap]:
    """Return the measured map of each target that has one; `region` is the part of the input that the page shows."""
    maps = []
    for number, target in enumerate(e.targets):
        if has_map(e, target):
            values = pack(crop(fit_map(e.drops[target][0]), e.size, region))
            maps.append(PageMap(MEASURED, number, len(e.layers), values, positive_evidence=None, flags=()))
    return maps


def crop(values: Array, size: Sequence[int], region: Region | None) -> NDArray[np.float32]:
    """Return the part of a map of the input that lies in `region`, at the pixels of the input."""
    if region is None:
        return values.astype(np.float32)
    pixels = map_functions.resize(torch.from_numpy(values)[None].float(), size)
    result: NDArray[np.float32] = region.cut_box(pixels)[0].numpy()
    return result


def describe_covering(e: ExplanationData) -> dict[str, Any] | None:
    """Return the windows and the drops of each target; None if no image was covered."""
    if not any(found[0].values for found in e.drops.values()):
        return None
    targets: list[dict[str, Any] | None] = []
    for result in e.target_results:
        if result.key not in e.drops:
            targets.append(None)
            continue
        drops = e.drops[result.key][0]
        unit = "score" if result.classes is None else "log-odds"
        values = [rounded(value) for value in drops.values]
        targets.append({"values": values, "all": rounded(drops.everything), "reason": drops.reason, "unit": unit})
    modes = [{"keeps": mode.keeps, "side": mode.side, "name": str(Fraction(mode.side))} for mode in MODES]
    return {"box": e.view.box, "modes": modes, "targets": targets}


def describe_curves(e: ExplanationData, key: MapKey) -> dict[str, Any] | None:
    """Return the removal curves of a map by filler, each with the area between both; None without any."""
    if key not in e.curves or not e.curves[key][0]:
        return None
    return {
        filler: {
            "most": points(curves.most_first),
            "least": points(curves.least_first),
            "area": rounded(curves.least_first.area - curves.most_first.area),
        }
        for filler, curves in e.curves[key][0].items()
    }


def describe_random_curves(e: ExplanationData) -> list[dict[str, Any]]:
    """Return the random curves of each target by filler; an empty list without any."""
    if not e.random_curves:
        return []
    empty: tuple[dict[str, RemovalCurve]] = ({},)
    return [
        {filler: points(curve) for filler, curve in e.random_curves.get(target, empty)[0].items()}
        for target in e.targets
    ]


def points(curve: RemovalCurve) -> list[tuple[float | None, float | None]]:
    """Return the points of a curve. Scores that are not finite are omitted."""
    pairs = zip(curve.fractions.tolist(), curve.scores.tolist(), strict=True)
    return [(rounded(fraction), rounded(score)) for fraction, score in pairs if math.isfinite(score)]


def rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
