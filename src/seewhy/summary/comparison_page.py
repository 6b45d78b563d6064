"""What the page of two runs beside each other shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from seewhy import storage
from seewhy.bulk.statistics import UNIFORM
from seewhy.images.types import ImageArray
from seewhy.summary.comparison import Comparison
from seewhy.summary.document import EXTREMES, column, extremes, rounded
from seewhy.summary.normalization import shares
from seewhy.summary.tables import BINS, distributions, mean
from seewhy.summary.thumbnails import SIDE, Thumbnails, address, heat_picture, lines, photos, with_heat
from seewhy.summary.wording import STATISTICS
from seewhy.viewer import jpeg_data_url

MOST = 60  # pictures in the table of the least alike
QUIET = (
    "Choose below what differs: the pictures whose maps are least alike, and those that are answered in another way."
)


def comparison_document(both: Comparison) -> dict[str, Any]:
    """The data of the page."""
    thumbs, pairs = Thumbnails(both.answers[0]), Pairs(both)
    least, (changed, _) = both.least_alike[:MOST], both.changed
    tables = [
        pairs.table("least", "Least alike", f"The {len(least)} pictures whose heat differs most.", least),
        pairs.table("changed", "Answered in another way", f"{len(changed):,} pictures.", changed[:MOST]),
        means_table(both),
    ]
    return {
        "facts": comparison_facts(both), "findings": [], "quiet": QUIET, "statistics": comparison_entries(both, thumbs),
        "first": "likeness", "tables": tables, "notes": list(both.notes),
        "spread": f"Grey: {both.titles[0]}. Outlined: {both.titles[1]}. Medians of the first and the second.",
        "pictures": [*thumbs.made(), *pairs.made(len(thumbs.numbers))],
    }  # fmt: skip


def comparison_facts(both: Comparison) -> list[tuple[str, str]]:
    facts = [("pictures in both", f"{len(both.first):,}")]
    if both.same_answer is not None:
        known = both.changed[1]
        of = "" if known == len(both.first) else f" of {known:,} with two answers"
        facts.append(("same answer", f"{both.same_answer:.1%}{of}"))
    alike, overlap = both.median(both.likeness), both.median(both.overlap)
    if alike is not None:
        facts.append(("alike, median", f"{alike:.2f} (correlation of the heat)"))
    if overlap is not None:
        facts.append(("in the same place, median", f"{overlap:.0%} of the heat"))
    for title, run, (part, rows) in zip(both.titles, both.runs, both.sides, strict=True):
        judged = rows[part.judged[rows]]
        right = part.right
        score = "" if right is None or not len(judged) else f", {right[judged].mean():.1%} right of {len(judged):,}"
        facts.append((title, f"{run.model['model']}, {part.method} for {part.target} at {part.layer}{score}"))
    return facts


class Pairs:
    """Thumbnails of the same picture from both runs, side by side."""

    def __init__(self, both: Comparison) -> None:
        self.both = both
        self.wanted: dict[int, int] = {}
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
            sides = [part.columns["predicted_name"][rows_of[place]] for part, rows_of in self.both.sides]
            cell = {"pictures": [self.number(place)]}
            self.cells.append(cell)
            name_of = self.both.answers[0].columns["id"][self.both.first[place]]
            rows.append([cell, name_of, rounded(float(self.both.likeness[place])), *sides])
        return {"id": name, "title": title, "words": words, "columns": columns, "rows": rows}

    def number(self, place: int) -> int:
        return self.wanted.setdefault(place, len(self.wanted))

    def made(self, start: int) -> list[dict[str, Any]]:
        """The pictures, and the cells brought to count from `start`, behind those that were made before."""
        for cell in self.cells:
            cell["pictures"] = [number + start for number in cell["pictures"]]
        found = {(place, side): path for place in self.wanted for side, path in enumerate(self.paths(place))}
        drawn = {key: self.drawn(*key, photo) for key, photo in photos(found)}
        return [self.one(place, [drawn[place, side] for side in (0, 1)]) for place in self.wanted]

    def paths(self, place: int) -> list[str]:
        return [part.columns["path"][rows[place]] for part, rows in self.both.sides]

    def drawn(self, place: int, side: int, photo: ImageArray | None) -> Image.Image:
        part, rows = self.both.sides[side]
        at = int(rows[place])
        return with_heat({name: values[at] for name, values in part.columns.items()}, photo, part.maps[at])

    def one(self, place: int, drawn: list[Image.Image]) -> dict[str, Any]:
        said = [lines(part, int(rows[place])) for part, rows in self.both.sides]
        sheet = Image.new(
            "RGB", (sum(one.width for one in drawn) + 4, max(one.height for one in drawn)), (128, 128, 128)
        )
        sheet.paste(drawn[0], (0, 0))
        sheet.paste(drawn[1], (drawn[0].width + 4, 0))
        name = self.both.answers[0].columns["id"][self.both.first[place]]
        words = [f"first: {'; '.join(said[0])}", f"second: {'; '.join(said[1])}"]
        return {"id": name, "thumbnail": jpeg_data_url(storage.encode_jpeg(sheet, quality=78)), "lines": words}


def comparison_entries(both: Comparison, thumbs: Thumbnails) -> list[dict[str, Any]]:
    counts, _ = np.histogram(both.likeness[~np.isnan(both.likeness)].clip(0, 1), BINS, (0, 1))
    ends = both.first[extremes(both.likeness)]
    median = both.median(both.likeness)
    found: list[dict[str, Any]] = [] if median is None else [{
        "name": "likeness", "title": "How alike the maps are",
        "words": "Correlation of the two heats of a picture (below 0 counts as 0).", "counts": counts.tolist(),
        "median": rounded(median), "uniform": None, "highTitle": "Most alike",
        "lowTitle": "Least alike", "high": thumbs.of(ends[::-1], EXTREMES), "low": thumbs.of(ends, EXTREMES),
    }]  # fmt: skip
    seconds = {one.name: one for one in distributions(both.answers[1], both.second)}
    order = list(STATISTICS)
    for one in sorted(distributions(both.answers[0], both.first), key=lambda one: order.index(one.name)):
        if one.name not in seconds:
            continue
        title, words, _, _ = STATISTICS[one.name]
        values = [part.statistics[one.name] for part in both.answers]
        risen = both.first[extremes(values[1][both.second] - values[0][both.first])]
        found.append({
            "name": one.name, "title": title, "words": words, "counts": one.counts.tolist(), "median": rounded(one.median),
            "counts2": seconds[one.name].counts.tolist(), "median2": rounded(seconds[one.name].median),
            "uniform": UNIFORM.get(one.name), "highTitle": "Risen most from the first to the second",
            "lowTitle": "Fallen most", "high": thumbs.of(risen[::-1], EXTREMES), "low": thumbs.of(risen, EXTREMES),
        })  # fmt: skip
    return found


def means_table(both: Comparison) -> dict[str, Any]:
    rows = []
    for title, (part, rows_of) in zip(both.titles, both.sides, strict=True):
        whole = shares(part.maps[rows_of]).mean(0)
        numbers = [rounded(mean(part.numbers[name][rows_of])) for name in ("border", "corner", "spread", "positive")]
        rows.append(
            [{"mean": address(heat_picture(whole, part.size, SIDE)), "alt": f"mean map of {title}"}, title, *numbers]
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
