"""The answer in words: what the model sees, where, from which layer on, and how far to trust the map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy import storage
from seewhy.explanation.checks import MapCheck, chance_confirmations
from seewhy.explanation.data import ExplanationData, MapKey, heatmap_of, positive_maps
from seewhy.explanation.selection import available_layer, layers_of
from seewhy.methods.catalog import LINEAR
from seewhy.tensors import map_functions

PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the center", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)
LONGEST = 64  # pixels of the longer side of the heatmap in which regions are found
MARKED = 0.5  # of the maximum
WIDE = 0.5  # of the photo; a larger marked area has no place
MINOR = 0.15  # of the marked evidence; smaller regions are not named
MOST_PLACES = 3
AGREEING = 0.5  # correlation with the suggested layer, as on the page
GRID = (28, 28)  # on which maps of two layers are correlated


@dataclass(frozen=True)
class Comparison:
    """Where the explained class has more evidence than another one: the positive part of the difference of their maps.

    Attributes:
        target: The name of the other class.
        probability: Of the other class; None if it has none.
        places: As those of an `Answer`.
        area: As that of an `Answer`.
    """

    target: str
    probability: float | None
    places: tuple[str, ...]
    area: float

    def sentence(self, target: str) -> str:
        """Return one sentence about the explained class `target`; "" if the difference has no place."""
        chance = "" if self.probability is None else f" ({self.probability:.1%})"
        start = f"The evidence for {target} exceeds that for {self.target}{chance}"
        if self.area > WIDE:
            return f"{start} on {self.area:.0%} of the image."
        return f"{start} most {join(self.places)}, on {self.area:.0%} of the image." if self.places else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        area = storage.finite_or_none(self.area)
        return {"target": self.target, "probability": self.probability, "places": list(self.places), "area": area}


@dataclass(frozen=True)
class Answer:
    """The answer for one target.

    Attributes:
        target: The name of the target.
        probability: Of the class; None for other targets.
        layer: The layer whose map is described: the suggested one, or the last one with a map.
        places: Where the evidence is, "in the center"; empty if the map marks most of the image, or nothing.
        area: Fraction of the photo where the heatmap is at least half of its maximum.
        first_layer: The first layer from which on the maps up to this one agree with it; "" if no other does.
        has_later_layers: True if maps of later layers exist, which were not compared.
        check: How far to trust the map; None if it was not checked.
        second: Where there is more evidence than for the second target; None if there is none to compare with.
    """

    target: str
    probability: float | None
    layer: str
    places: tuple[str, ...]
    area: float
    first_layer: str
    has_later_layers: bool
    check: MapCheck | None
    second: Comparison | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON, with its sentences."""
        return {
            "target": self.target,
            "probability": self.probability,
            "layer": self.layer,
            "places": list(self.places),
            "area": storage.finite_or_none(self.area),
            "first_layer": self.first_layer or None,
            "second": None if self.second is None else self.second.to_dict(),
            "verdict": None if self.check is None else self.check.verdict,
            "text": " ".join([f"{self.headline}.", *self.sentences]),
        }

    @property
    def headline(self) -> str:
        """The class and its probability: "minibus, 62.5%"."""
        return self.target if self.probability is None else f"{self.target}, {self.probability:.1%}"

    @property
    def sentences(self) -> list[str]:
        """Where the evidence is, also compared with the second target, from which layer on, and the verdict."""
        sentences = []
        if self.area > WIDE:
            sentences.append(f"The evidence is spread over {self.area:.0%} of the image.")
        elif self.places:
            sentences.append(f"The evidence lies {join(self.places)}, on {self.area:.0%} of the image.")
        if self.second is not None and (sentence := self.second.sentence(self.target)):
            sentences.append(sentence)
        if self.first_layer:
            end = f"to layer {self.layer}" if self.has_later_layers else "on"
            sentences.append(f"The maps agree from layer {self.first_layer} {end}.")
        if self.check is not None:
            sentences.append(self.check.sentence(self.target))
        return sentences


def find_answer(e: ExplanationData, key: MapKey | None = None) -> Answer:
    """Return the answer that one map of one image gives; by default, the map of the suggested layer."""
    if key is None:
        method = e.methods[0]
        key = (method, e.targets[0], available_layer(e, method, e.suggested or ""))
    method, target, layer = key
    result = e.target_results[e.targets.index(target)]
    chance = None if result.probabilities is None else float(result.probabilities[0])
    places, area = find_places(e, key)
    check = e.checks[key][0] if key in e.checks else None
    first, is_last = first_agreeing(e, method, target, layer), layers_of(e, method)[-1] == layer
    probability = chance if chance is None or math.isfinite(chance) else None
    second = compare_with_second(e, key)
    return Answer(result.name, probability, layer, places, area, first, not is_last, check, second)


def compare_with_second(e: ExplanationData, key: MapKey) -> Comparison | None:
    """Return where the first target has more evidence than the second one, if the maps of two classes can be subtracted."""
    method, target, layer = key
    if len(e.targets) < 2 or target != e.targets[0] or method.partition("(")[0] not in LINEAR:
        return None
    result, other = e.target_results[1], (method, e.targets[1], layer)
    if other not in e.maps:
        return None
    if result.probabilities is None or e.target_results[0].probabilities is None:
        return None
    difference = dataclasses.replace(e, maps={key: e.maps[key] - e.maps[other]})
    places, area = find_places(difference, key)
    chance = float(result.probabilities[0])
    return Comparison(result.name, chance if math.isfinite(chance) else None, places, area)


def find_places(e: ExplanationData, key: MapKey) -> tuple[tuple[str, ...], float]:
    """Return where a heatmap is at least half of its maximum, largest region first, and on which fraction of the photo."""
    if len(e.size) != 2:
        return (), math.nan
    height, width = e.view.photo_size
    scale = LONGEST / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    heatmap = heatmap_of(e, key, "own").on_photo(e.view, size)
    marked = heatmap >= MARKED
    if not np.isfinite(heatmap).all() or not heatmap.max() > 0:
        return (), math.nan
    return name_places(np.where(marked, heatmap, 0)), float(marked.mean())


def name_places(values: NDArray[np.float32]) -> tuple[str, ...]:
    """Return the names of the connected regions of positive values, the one with the largest sum first.

    >>> name_places(np.eye(3, dtype=np.float32)[:, ::-1] * [[0], [0], [1]])
    ('in the lower left',)
    """
    regions = [np.where(labels, values, 0) for labels in connected_regions(values > 0)]
    regions.sort(key=lambda region: -region.sum())
    names: dict[str, None] = {}
    for region in regions:
        if region.sum() >= MINOR * values.sum():
            row, column = (center_third(region.sum(axis)) for axis in (1, 0))
            names[PLACES[row][column]] = None
    return tuple(names)[:MOST_PLACES]


def center_third(profile: NDArray[np.float32]) -> int:
    """Return the third of an axis, 0 to 2, that contains the center of mass of values along it."""
    center = float(profile @ (np.arange(len(profile)) + 0.5)) / float(profile.sum())
    return min(int(3 * center / len(profile)), 2)


def connected_regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return the connected regions of a small mask (H, W); cells that touch at a corner are connected.

    Importing the function of SciPy takes longer (0.2 s) than everything else that is computed after the maps.
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
        spread = np.where(mask, np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]), 0)
        if np.array_equal(spread, labels):
            return [labels == label for label in np.unique(labels[mask])]
        labels = spread


def join(texts: Sequence[str]) -> str:
    """Return texts as a list in a sentence: "a, b and c"."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def first_agreeing(e: ExplanationData, method: str, target: str, layer: str) -> str:
    """Return the first layer from which on all maps up to `layer` correlate with its map; "" for fewer than 3 layers."""
    layers = [name for name in layers_of(e, method) if (method, target, name) in e.maps]
    before = layers[: layers.index(layer) + 1] if layer in layers else []
    if len(before) < 3 or len(e.size) != 2:
        return ""
    rows = np.stack([centered(e, (method, target, name)) for name in before])
    lengths = np.linalg.norm(rows, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        agree = rows @ rows[-1] / (lengths * lengths[-1]) >= AGREEING
    if not agree[-1] or agree[:-1].sum() == 0:
        return ""
    different = np.nonzero(~agree)[0]
    first = before[different[-1] + 1 if len(different) else 0]
    return "" if first == layer else first


def centered(e: ExplanationData, key: MapKey) -> NDArray[np.float64]:
    """Return the positive values of a map on a common grid, minus their mean."""
    positive = map_functions.rectify(positive_maps(e, key)[:1].float())
    values = map_functions.resize(positive, GRID)[0].double().flatten()
    array: NDArray[np.float64] = (values - values.mean()).detach().cpu().numpy()
    return array


def describe_chance(e: ExplanationData, method: str, target: str) -> str:
    """Return how many maps of a method were confirmed, next to how many chance alone would confirm; "" if none were checked."""
    checks = [found[0] for key, found in e.checks.items() if key[:2] == (method, target)]
    checked = sum(check.verdict != "not checked" for check in checks)
    if not checked:
        return ""
    confirmed = sum(check.verdict == "confirmed" for check in checks)
    noun = f"map{'' if checked == 1 else 's'} {'is' if confirmed == 1 else 'are'}"
    chance = chance_confirmations(checked)
    number = f"{chance:.0f}" if chance >= 1 else f"{chance:.2g}"
    return f"{confirmed} of {checked} checked {noun} confirmed; chance alone would confirm about {number}."
