"""Two runs of the same pictures beside each other: two models, two layers, before and after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from seewhy import storage, tensors
from seewhy.bulk.run import Run
from seewhy.bulk.statistics import UNIFORM
from seewhy.errors import UsageError
from seewhy.summary.document import EXTREMES, column, extremes, numbers_of, rounded
from seewhy.summary.gather import Answers, Maps, gather
from seewhy.summary.pictures import SIDE, Thumbnails, address, heat_picture, lines, photo_of, with_heat
from seewhy.summary.tables import BINS, distributions, shares
from seewhy.summary.words import STATISTICS
from seewhy.viewer import picture_address

MOST = 60  # pictures in the table of the least alike
QUIET = (
    "Choose below what differs: the pictures whose maps are least alike, and those that are answered in another way."
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs, the pictures that both hold, in the order of the first.

    `first` and `second` are the places of those pictures in each run's answers; `likeness` is the correlation of the two heats
    (NaN for a blank one), `overlap` the share of heat that both have in the same place (1 - half the sum of differences).
    """

    runs: tuple[Run, Run]
    answers: tuple[Answers, Answers]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    likeness: NDArray[np.float64]
    overlap: NDArray[np.float64]


def compare(one: Run, other: Run, **choice: Any) -> Comparison:
    """Match the pictures of two runs by id, and their maps. Raises UsageError where no picture is in both."""
    layer = choice.pop("layer", None)
    answers = tuple(gather(run, **choice, layer=layer) for run in (one, other))
    places = {name: at for at, name in enumerate(answers[1].columns["id"])}
    first = np.array([at for at, name in enumerate(answers[0].columns["id"]) if name in places], np.intp)
    if not len(first):
        raise UsageError(
            f"{one.folder} and {other.folder} hold no picture of the same id; compare runs of the same input."
        )
    second = np.array([places[answers[0].columns["id"][at]] for at in first], np.intp)
    heat = [shares(on_grid(answers[number].maps[rows], answers[0])) for number, rows in enumerate((first, second))]
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in heat]
    centred = [part - part.mean(1, keepdims=True) for part in flat]
    lengths = [np.sqrt((part**2).sum(1)) for part in centred]
    with np.errstate(invalid="ignore", divide="ignore"):
        likeness = (centred[0] * centred[1]).sum(1) / (lengths[0] * lengths[1])
    overlap = 1 - np.abs(flat[0] - flat[1]).sum(1) / 2
    overlap[(lengths[0] == 0) | (lengths[1] == 0)] = np.nan
    return Comparison((one, other), (answers[0], answers[1]), first, second, likeness, overlap)


def on_grid(maps: Maps, like: Answers) -> Maps:
    """Maps on the finer of the usual grids: that of the first run, or their own where they have it."""
    shape = like.maps.shape[1:]
    if maps.shape[1:] == shape:
        return maps
    made: Maps = tensors.resize(torch.from_numpy(np.ascontiguousarray(maps)), shape).numpy()
    return made


def document(both: Comparison) -> dict[str, Any]:
    """The data of the page."""
    one, other = both.answers
    thumbs = Thumbnails(one)
    titles = [str(run.folder) for run in both.runs]
    said = [np.array([-1 if value is None else value for value in part.columns["predicted"]]) for part in both.answers]
    changed = np.flatnonzero(said[0][both.first] != said[1][both.second])
    facts = [("pictures in both", f"{len(both.first):,}"), ("same answer", f"{1 - len(changed) / len(both.first):.1%}"),
             ("alike, median", f"{np.nanmedian(both.likeness):.2f} (correlation of the heat)")]  # fmt: skip
    for run, part, rows in zip(both.runs, both.answers, (both.first, both.second), strict=True):
        right = part.right
        score = "" if right is None else f", {right[rows].mean():.1%} right"
        facts.append((str(run.folder), f"{run.model['model']}, {part.method} at {part.layer}{score}"))
    least = np.argsort(np.nan_to_num(both.likeness, nan=2.0), kind="stable")[:MOST]
    pairs = Pairs(both)
    tables = [
        pairs.table("least", "Least alike", f"The {len(least)} pictures whose heat differs most.", least),
        pairs.table("changed", "Answered in another way", f"{len(changed):,} pictures.", changed[:MOST]),
        means_table(both, titles),
    ]
    entries = statistics_entries(both, thumbs)
    notes = [f"{len(one) - len(both.first):,} pictures are only in {titles[0]}"] if len(one) > len(both.first) else []
    notes += (
        [f"{len(other) - len(both.first):,} pictures are only in {titles[1]}"] if len(other) > len(both.first) else []
    )
    return {
        "facts": facts, "findings": [], "quiet": QUIET, "statistics": entries, "first": "likeness", "tables": tables,
        "notes": notes, "spread": f"Grey: {titles[0]}. Outlined: {titles[1]}. Medians of the first and the second.",
        "pictures": [*thumbs.made(), *pairs.made(len(thumbs.numbers))],
    }  # fmt: skip


class Pairs:
    """Thumbnails of the same picture from both runs, side by side."""

    def __init__(self, both: Comparison) -> None:
        self.both = both
        self.wanted: list[int] = []
        self.cells: list[dict[str, Any]] = []

    def table(self, name: str, title: str, words: str, places: Any) -> dict[str, Any]:
        columns = [
            column("Both", sorts=False),
            column("Picture"),
            column("Alike", "ratio"),
            column("First says"),
            column("Second says"),
        ]
        rows = []
        for place in map(int, places):
            sides = [part.columns["predicted_name"][rows_of[place]] for part, rows_of in self.sides]
            cell = {"pictures": [self.number(place)]}
            self.cells.append(cell)
            name_of = self.both.answers[0].columns["id"][self.both.first[place]]
            rows.append([cell, name_of, rounded(float(self.both.likeness[place])), *sides])
        return {"id": name, "title": title, "words": words, "columns": columns, "rows": rows}

    @property
    def sides(self) -> list[tuple[Answers, NDArray[np.intp]]]:
        return [(self.both.answers[0], self.both.first), (self.both.answers[1], self.both.second)]

    def number(self, place: int) -> int:
        if place not in self.wanted:
            self.wanted.append(place)
        return self.wanted.index(place)

    def made(self, start: int) -> list[dict[str, Any]]:
        """The pictures, and the cells brought to count from `start`, behind those that were made before."""
        for cell in self.cells:
            cell["pictures"] = [number + start for number in cell["pictures"]]
        return [self.one(place) for place in self.wanted]

    def one(self, place: int) -> dict[str, Any]:
        drawn, said = [], []
        for part, rows in self.sides:
            at = int(rows[place])
            row = {name: values[at] for name, values in part.columns.items()}
            drawn.append(with_heat(row, photo_of(row["path"]), part.maps[at]))
            said.append(lines(part, at))
        sheet = Image.new(
            "RGB", (sum(one.width for one in drawn) + 4, max(one.height for one in drawn)), (128, 128, 128)
        )
        sheet.paste(drawn[0], (0, 0))
        sheet.paste(drawn[1], (drawn[0].width + 4, 0))
        name = self.both.answers[0].columns["id"][self.both.first[place]]
        words = [f"first: {'; '.join(said[0])}", f"second: {'; '.join(said[1])}"]
        return {"id": name, "thumbnail": picture_address(storage.jpeg(sheet, quality=78)), "lines": words}


def statistics_entries(both: Comparison, thumbs: Thumbnails) -> list[dict[str, Any]]:
    counts, _ = np.histogram(both.likeness[~np.isnan(both.likeness)].clip(0, 1), BINS, (0, 1))
    ends = both.first[extremes(both.likeness)]
    found: list[dict[str, Any]] = [{
        "name": "likeness", "title": "How alike the maps are",
        "words": "Correlation of the two heats of a picture (below 0 counts as 0).", "counts": counts.tolist(),
        "median": rounded(float(np.nanmedian(both.likeness))), "uniform": None, "highTitle": "Most alike",
        "lowTitle": "Least alike", "high": thumbs.of(ends[::-1], EXTREMES), "low": thumbs.of(ends, EXTREMES),
    }]  # fmt: skip
    seconds = {one.name: one for one in distributions(both.answers[1])}
    order = list(STATISTICS)
    for one in sorted(distributions(both.answers[0]), key=lambda one: order.index(one.name)):
        if one.name not in seconds:
            continue
        title, words, _, _ = STATISTICS[one.name]
        values = [
            numbers_of(part.columns["confidence"]) if one.name == "confidence" else part.numbers[one.name]
            for part in both.answers
        ]
        risen = both.first[extremes(values[1][both.second] - values[0][both.first])]
        found.append({
            "name": one.name, "title": title, "words": words, "counts": one.counts.tolist(), "median": rounded(one.median),
            "counts2": seconds[one.name].counts.tolist(), "median2": rounded(seconds[one.name].median),
            "uniform": UNIFORM.get(one.name), "highTitle": "Risen most from the first to the second",
            "lowTitle": "Fallen most", "high": thumbs.of(risen[::-1], EXTREMES), "low": thumbs.of(risen, EXTREMES),
        })  # fmt: skip
    return found


def means_table(both: Comparison, titles: list[str]) -> dict[str, Any]:
    rows = []
    for title, (part, rows_of) in zip(
        titles, ((both.answers[0], both.first), (both.answers[1], both.second)), strict=True
    ):
        mean = shares(part.maps[rows_of]).mean(0)
        numbers = [
            rounded(float(np.nanmean(part.numbers[name][rows_of])))
            for name in ("border", "corner", "spread", "positive")
        ]
        rows.append(
            [{"mean": address(heat_picture(mean, part.size, SIDE)), "alt": f"mean map of {title}"}, title, *numbers]
        )
    columns = [
        column("Mean map", sorts=False),
        column("Run"),
        *(column(name, "ratio") for name in ("Border", "Corner", "Spread", "Positive")),
    ]
    return {
        "id": "means",
        "title": "On the whole",
        "words": "Mean heat and mean numbers of the pictures in both.",
        "columns": columns,
        "rows": rows,
    }
