"""The data of the comparison page of two runs. `viewer.build_summary` describes the format."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from seewhy import storage
from seewhy.bulk.statistics import UNIFORM
from seewhy.images.types import ImageArray
from seewhy.summary.aggregates import BINS, compute_distributions, nan_mean, nan_median, sort_rows
from seewhy.summary.comparison import Comparison
from seewhy.summary.page_parts import EXTREMES, Entry, column, mean_map_url, round_value
from seewhy.summary.statistic_texts import STATISTIC_TEXTS
from seewhy.summary.thumbnails import SIDE, Thumbnails, describe_image, draw_thumbnail, photo_file, read_photos
from seewhy.summary.verdicts import share_of_rows
from seewhy.viewer import jpeg_data_url

MAX_ROWS = 60  # of a table of images
GAP = 4  # pixels between the two thumbnails of an image
MEAN_STATISTICS = ("border", "corner", "spread", "positive")


def build_comparison_data(comparison: Comparison) -> Entry:
    """Return the data of the page."""
    thumbnails, pairs = Thumbnails(comparison.tables[0]), ThumbnailPairs(comparison)
    ranked, (changed, _) = comparison.ranked[:MAX_ROWS], comparison.changed
    description = f"The {len(ranked)} images whose maps differ most."
    tables = [pairs.build_table("lowest", "Lowest correlation", description, ranked)]
    if len(changed):
        count = f"{len(changed):,} images."
        tables.append(pairs.build_table("changed", "Different predictions", count, changed[:MAX_ROWS]))
    tables.append(means_table(comparison))
    return {
        "facts": comparison_facts(comparison), "findings": [], "no_findings": "",
        "statistics": comparison_entries(comparison, thumbnails), "first_statistic": "correlation", "tables": tables,
        "notes": list(comparison.notes),
        "statistics_note": f"Gray: {comparison.titles[0]}. Outlined: {comparison.titles[1]}. The numbers are the medians.",
        "images": [*thumbnails.render(), *pairs.render(len(thumbnails.numbers))],
    }  # fmt: skip


def comparison_facts(comparison: Comparison) -> list[tuple[str, str]]:
    facts = [("images in both runs", f"{len(comparison.rows[0]):,}")]
    if comparison.agreement is not None:
        count = comparison.changed[1]
        of = "" if count == len(comparison.rows[0]) else f" of {count:,} with two predictions"
        facts.append(("same prediction", f"{comparison.agreement:.1%}{of}"))
    correlation, overlap = nan_median(comparison.correlation), nan_median(comparison.overlap)
    if correlation is not None:
        facts.append(("median correlation of the maps", f"{correlation:.2f}"))
    if overlap is not None:
        facts.append(("median overlap", f"{overlap:.0%} of the evidence"))
    for title, run, (table, rows) in zip(comparison.titles, comparison.runs, comparison.sides, strict=True):
        labeled = rows[table.labeled[rows]]
        accuracy = ""
        if table.correct is not None and len(labeled):
            accuracy = f", {table.correct[labeled].mean():.1%} of {len(labeled):,} correct"
        share = share_of_rows(table, rows.tolist())
        confirmed = "" if share is None else f", {share} checked maps confirmed"
        text = f"{run.model['model']}, {table.method} for {table.target} at {table.layer}{accuracy}{confirmed}"
        facts.append((title, text))
    return facts


class ThumbnailPairs:
    """Thumbnails that show the same image in both runs, side by side."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.numbers: dict[int, int] = {}
        self.cells: list[Entry] = []

    def build_table(self, name: str, title: str, description: str, places: Iterable[int]) -> Entry:
        """Return a table with one row for each of the common images at `places`."""
        columns = [
            column("Both runs", is_sortable=False),
            column("Image"),
            column("Correlation", "ratio"),
            column("First prediction"),
            column("Second prediction"),
        ]
        rows = []
        for place in map(int, places):
            predictions = [table.columns["predicted_name"][rows_of[place]] for table, rows_of in self.comparison.sides]
            cell = {"images": [self.numbers.setdefault(place, len(self.numbers))]}
            self.cells.append(cell)
            correlation = round_value(float(self.comparison.correlation[place]))
            rows.append([cell, self.comparison.image_id(place), correlation, *predictions])
        return {"id": name, "title": title, "description": description, "columns": columns, "rows": rows}

    def render(self, start: int) -> list[Entry]:
        """Return the entries of all images, and renumber the cells to count from `start`."""
        for cell in self.cells:
            cell["images"] = [number + start for number in cell["images"]]
        files = {
            (place, side): photo_file(table, int(rows[place]))
            for place in self.numbers
            for side, (table, rows) in enumerate(self.comparison.sides)
        }
        thumbnails = {key: self.draw(*key, photo) for key, photo in read_photos(files)}
        return [self.make_entry(place, thumbnails[place, 0], thumbnails[place, 1]) for place in self.numbers]

    def draw(self, place: int, side: int, photo: ImageArray | None) -> Image.Image:
        table, rows = self.comparison.sides[side]
        row = int(rows[place])
        return draw_thumbnail(table.row(row), photo, table.maps[row])

    def make_entry(self, place: int, first: Image.Image, second: Image.Image) -> Entry:
        size = (first.width + GAP + second.width, max(first.height, second.height))
        canvas = Image.new("RGB", size, (128, 128, 128))
        canvas.paste(first, (0, 0))
        canvas.paste(second, (first.width + GAP, 0))
        descriptions = ["; ".join(describe_image(table, int(rows[place]))) for table, rows in self.comparison.sides]
        return {
            "id": self.comparison.image_id(place),
            "thumbnail": jpeg_data_url(storage.encode_jpeg(canvas, quality=78)),
            "lines": [f"first run: {descriptions[0]}", f"second run: {descriptions[1]}"],
        }


def comparison_entries(comparison: Comparison, thumbnails: Thumbnails) -> list[Entry]:
    """Return the distribution of the correlation, and of each statistic in both runs."""
    first_rows, second_rows = comparison.rows
    entries: list[Entry] = []
    median = nan_median(comparison.correlation)
    if median is not None:
        known = comparison.correlation[~np.isnan(comparison.correlation)]
        counts, _ = np.histogram(known.clip(0, 1), BINS, (0, 1))
        ranked = first_rows[comparison.ranked]
        entries.append({
            "name": "correlation", "title": "Correlation of the maps",
            "description": "Correlation of the positive parts of the two maps of an image (negative values count as 0).",
            "counts": counts.tolist(), "median": round_value(median), "uniform": None,
            "high_title": "Highest correlation", "low_title": "Lowest correlation",
            "high": thumbnails.add(ranked[::-1], EXTREMES), "low": thumbnails.add(ranked, EXTREMES),
        })  # fmt: skip
    seconds = {one.name: one for one in compute_distributions(comparison.tables[1], second_rows)}
    order = list(STATISTIC_TEXTS)
    for one in sorted(compute_distributions(comparison.tables[0], first_rows), key=lambda one: order.index(one.name)):
        if one.name not in seconds:
            continue
        text, second = STATISTIC_TEXTS[one.name], seconds[one.name]
        values = [table.all_statistics[one.name][rows] for table, rows in comparison.sides]
        ranked = first_rows[sort_rows(values[1] - values[0])]
        entries.append({
            "name": one.name, "title": text.title, "description": text.description, "counts": one.counts.tolist(),
            "median": round_value(one.median), "counts2": second.counts.tolist(), "median2": round_value(second.median),
            "uniform": UNIFORM.get(one.name), "high_title": "Largest increase from the first to the second run",
            "low_title": "Largest decrease", "high": thumbnails.add(ranked[::-1], EXTREMES),
            "low": thumbnails.add(ranked, EXTREMES),
        })  # fmt: skip
    return entries


def means_table(comparison: Comparison) -> Entry:
    rows = []
    for title, (table, rows_of) in zip(comparison.titles, comparison.sides, strict=True):
        means = [round_value(nan_mean(table.statistics[name][rows_of])) for name in MEAN_STATISTICS]
        rows.append([{"mean": mean_map_url(table, rows_of, SIDE), "alt": f"mean map of {title}"}, title, *means])
    columns = [
        column("Mean map", is_sortable=False),
        column("Run"),
        *(
            column(name.capitalize(), "ratio", description=STATISTIC_TEXTS[name].description)
            for name in MEAN_STATISTICS
        ),
    ]
    description = "Mean map and mean statistics of the images in both runs."
    return {"id": "means", "title": "Means", "description": description, "columns": columns, "rows": rows}
