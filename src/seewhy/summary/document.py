"""What the page of one run shows, from its answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.statistics import UNIFORM
from seewhy.summary.answers import Answers, gather
from seewhy.summary.clusters import FEWEST, Cluster, Clusters
from seewhy.summary.findings import Finding, find_groups, find_shortcuts
from seewhy.summary.normalization import shares
from seewhy.summary.outliers import EDGE, FAR, Outliers, find_outliers
from seewhy.summary.tables import ClassRow, Confusion, class_rows, confusions, distributions
from seewhy.summary.thumbnails import Thumbnails, address, contrast_picture, heat_picture
from seewhy.summary.wording import LOOK, QUIET, STATISTICS

EXTREMES, IN_ROW, IN_FINDING = 12, 5, 18
MOST_CLASSES = 400  # with their thumbnails on the page; the tables beside it hold all
MOST_PAIRS = 100
MOST_CLUSTERS = 60
MOST_FINDINGS = 20
ASKED = {"top1": "predicted as", "label": "labelled"}  # how pictures came to their class; else it was asked for
Cell = Any


@dataclass(frozen=True, eq=False)
class Summary:
    """A run as a whole. `groups` are the clusters of each class's maps, and of all (None)."""

    run: BulkRun
    answers: Answers
    classes: list[ClassRow]
    confusions: list[Confusion]
    groups: dict[int | None, Clusters]
    findings: list[Finding]
    outliers: dict[str, Outliers]

    def name_of(self, index: int | None) -> str:
        return "all pictures" if index is None else self.answers.name_of(index)

    def ids(self, places: Iterable[int]) -> list[str]:
        """The ids of pictures."""
        return [self.answers.columns["id"][at] for at in places]


def summarize(
    run: BulkRun, method: str | None = None, target: str | None = None, layer: str | None = None
) -> Summary:
    """Count, cluster and judge the answers of a run. Raises UsageError where there are none, or no such choice.

    Of several methods, questions or layers the first (of layers the last) is taken where none is named.
    """
    answers = gather(run, method, target, layer)
    classes = class_rows(answers)
    names = {row.index: row.name for row in classes}
    groups = find_groups(answers.maps, answers.classes, answers.size)
    word = ASKED.get(answers.target, "asked as")
    findings = find_shortcuts(answers.maps, answers.classes, answers.size, names, groups, word)
    outliers = find_outliers(answers.numbers)
    return Summary(run, answers, classes, confusions(run, answers), groups, findings, outliers)


def document(summary: Summary) -> dict[str, Any]:
    """The data of the page."""
    thumbs = Thumbnails(summary.answers)
    found: dict[str, Any] = {
        "facts": facts(summary),
        "findings": [finding_entry(one, summary, thumbs) for one in summary.findings[:MOST_FINDINGS]],
        "unshown": unshown(summary),
        "quiet": QUIET,
        "statistics": statistics_entries(summary, thumbs),
        "first": "inside" if summary.answers.numbers["inside"].size and known(summary, "inside") else "border",
        "spread": "Pictures by each number, the line at their median. Choose one for the pictures at its ends.",
        "tables": [
            *([confusion_table(summary, thumbs)] if summary.confusions else []),
            cluster_table(summary, thumbs),
            class_table(summary, thumbs),
            *([failed_table(summary.answers.failed)] if summary.answers.failed else []),
        ],
        "notes": [*summary.answers.notes, *summary_notes(summary)],
    }
    found["pictures"] = thumbs.made()
    if thumbs.missing:
        found["notes"].append(f"{thumbs.missing} photos are not where they were: their heat alone is shown")
    return found


def known(summary: Summary, name: str) -> bool:
    return not np.isnan(summary.answers.numbers[name]).all()


def facts(summary: Summary) -> list[tuple[str, str]]:
    answers, run = summary.answers, summary.run
    found = [("pictures", f"{len(answers):,}"), ("classes", f"{len(summary.classes):,}")]
    if answers.right is not None:
        found.append(("right", f"{answers.right[answers.judged].mean():.1%} of {answers.judged.sum():,} with a label"))
    if answers.failed:
        found.append(("failed", f"{len(answers.failed):,}"))
    names = {"top1": "the predicted class", "label": "the class of the label"}
    found += [
        ("maps", f"{answers.method} for {names.get(answers.target, answers.target)}"),
        ("layer", f"{answers.layer}, {answers.maps.shape[1]}x{answers.maps.shape[2]}"),
        ("run", str(run.folder)),
    ]
    if not run.complete:
        found.append(("so far", f"{len(run.files)} of {run.settings['parts']} parts"))
    return found


def unshown(summary: Summary) -> str:
    """What is said of the findings beyond those shown."""
    more = len(summary.findings) - MOST_FINDINGS
    return f"{more:,} more stand in findings.csv." if more > 0 else ""


def finding_entry(one: Finding, summary: Summary, thumbs: Thumbnails) -> dict[str, Any]:
    shown = thumbs.of(one.indices, IN_FINDING)
    mean = mean_heat(summary, one.indices)
    more = len(one.indices) - len(shown)
    return {"text": f"{one.sentence}.", "words": LOOK, "pictures": shown, "more": more, "mean": mean}


def mean_heat(summary: Summary, members: Any) -> str:
    return address(heat_picture(shares(summary.answers.maps[members]).mean(0), summary.answers.size))


def statistics_entries(summary: Summary, thumbs: Thumbnails) -> list[dict[str, Any]]:
    """Each statistic with its distribution and the pictures at its ends; of the border, the outliers as ranked."""
    order = list(STATISTICS)
    values = summary.answers.statistics
    found = []
    for one in sorted(distributions(summary.answers), key=lambda one: order.index(one.name)):
        title, words, high, low = STATISTICS[one.name]
        ends = extremes(values[one.name])
        entry = {
            "name": one.name, "title": title, "words": words, "counts": one.counts.tolist(), "median": rounded(one.median),
            "uniform": UNIFORM.get(one.name), "highTitle": high, "lowTitle": low,
            "high": thumbs.of(ends[::-1], EXTREMES) if high else [], "low": thumbs.of(ends, EXTREMES) if low else [],
        }  # fmt: skip
        found.append(entry)
    edge = summary.outliers[EDGE]
    border = next((entry for entry in found if entry["name"] == "border"), None)
    if border is not None and len(edge.indices):
        of = int(np.isfinite(summary.answers.numbers["border"]).sum())
        border["highTitle"] = "Farthest from the median: heat at the border or in a corner"
        border["high"] = thumbs.of(edge.indices, 2 * EXTREMES)
        border["words"] += f" By it or by a corner, {edge.far:,} of {of:,} lie more than {FAR} robust deviations out."
    return found


def extremes(values: Any) -> Any:
    """Indices of known values, rising; of equal ones in the order of the run."""
    rising = np.argsort(values, kind="stable")
    return rising[~np.isnan(values[rising])]


def rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def column(title: str, kind: str = "text", *, sorts: bool = True, words: str = "") -> dict[str, Any]:
    """A column of a table; `kind` is text, count, ratio (two digits) or percent."""
    of_kind = {"number": kind != "text", "percent": kind == "percent", "ratio": kind == "ratio"}
    return {"title": title, "sorts": sorts, "words": words, **of_kind}


def class_table(summary: Summary, thumbs: Thumbnails) -> dict[str, Any]:
    answers, labelled = summary.answers, summary.answers.right is not None
    inside = known(summary, "inside")
    columns = [
        column("Mean map", sorts=False), column("Class"), column("Pictures", "count"),
        *([column("Right", "percent", words="of those with a label")] if labelled else []),
        column("Probability", "percent", words="mean of the class"), column("Border", "ratio"),
        column("Corner", "ratio"), column("Spread", "ratio"), *([column("Inside", "ratio")] if inside else []),
        column("Most at the border", sorts=False),
    ]  # fmt: skip
    rows = []
    for row in summary.classes[:MOST_CLASSES]:
        outer = row.members[extremes(answers.numbers["border"][row.members])[::-1]]
        rows.append([
            {"mean": address(heat_picture(row.mean, answers.size)), "alt": f"mean map of {row.name}"}, row.name,
            len(row.members), *([row.right] if labelled else []), rounded(row.confidence),
            *(rounded(row.means[name]) for name in ("border", "corner", "spread", *(["inside"] if inside else []))),
            {"pictures": thumbs.of(outer, IN_ROW if len(summary.classes) <= 40 else 2)},
        ])  # fmt: skip
    words = "The mean of each class's heat, every picture counting as much."
    if len(summary.classes) > MOST_CLASSES:
        words += f" The {MOST_CLASSES} with the most pictures; all {len(summary.classes):,} are in classes.csv."
    return {"id": "classes", "title": "Classes", "words": words, "columns": columns, "rows": rows}


def cluster_table(summary: Summary, thumbs: Thumbnails) -> dict[str, Any]:
    """The clusters of all pictures, and of the classes that fall into several."""
    columns = [
        column("Mean map", sorts=False), column("Of"), column("Pictures", "count"),
        column("Apart", "ratio", words="share of the members' nearest neighbours that are members too"),
        column("Border", "ratio"), column("Corner", "ratio"), column("Spread", "ratio"),
        column("The most typical", sorts=False),
    ]  # fmt: skip
    rows = []
    for name, cluster in shown_clusters(summary):
        rows.append([
            {"mean": address(heat_picture(cluster.mean, summary.answers.size)), "alt": "mean map of the cluster"},
            summary.name_of(name), cluster.size, rounded(cluster.apart),
            *(rounded(cluster.statistics[statistic]) for statistic in ("border", "corner", "spread")),
            {"pictures": thumbs.of(cluster.representatives, IN_ROW)},
        ])  # fmt: skip
    words = (
        "Pictures that are answered from the same places: spectral clustering of the maps, of all and of each class with at "
        f"least {FEWEST} pictures (as in SpRAy, Lapuschkin et al. 2019). Numbers are of the mean map."
    )
    return {"id": "clusters", "title": "Clusters", "words": words, "columns": columns, "rows": rows}


def shown_clusters(summary: Summary) -> list[tuple[int | None, Cluster]]:
    whole = [(None, cluster) for cluster in summary.groups[None].clusters]
    several = [
        (name, cluster)
        for name, group in summary.groups.items()
        if name is not None and len(group.clusters) > 1
        for cluster in group.clusters
    ]
    return [*whole, *several][:MOST_CLUSTERS]


def confusion_table(summary: Summary, thumbs: Thumbnails) -> dict[str, Any]:
    size = summary.answers.size
    contrasts = any(pair.contrast is not None for pair in summary.confusions)
    columns = [
        *([column("Contrast", sorts=False)] if contrasts else []), column("Label"), column("Predicted"),
        column("Pictures", "count"), column("Which", sorts=False),
    ]  # fmt: skip
    rows = []
    for pair in summary.confusions[:MOST_PAIRS]:
        shown = thumbs.of(pair.members, IN_ROW)
        drawn: Cell = None
        if pair.contrast is not None:
            drawn = {"mean": address(contrast_picture(pair.contrast, size)), "alt": "mean contrast"}
        rows.append([
            *([drawn] if contrasts else []), pair.label_name, pair.predicted_name, len(pair.members),
            {"pictures": shown, "more": len(pair.members) - len(shown)},
        ])  # fmt: skip
    if contrasts:
        words = "Contrast: orange speaks for the predicted class rather than for the label, blue against it."
    else:
        words = (
            "For contrasts (why the one and not the other) a run needs maps of both classes: --targets predicted,label"
        )
    return {"id": "confusions", "title": "Mistaken for", "words": words, "columns": columns, "rows": rows}


def failed_table(failed: Sequence[tuple[str, str]]) -> dict[str, Any]:
    rows = [list(pair) for pair in failed[:2000]]
    words = f"{len(failed):,} pictures have no map."
    return {
        "id": "failed",
        "title": "Failed",
        "words": words,
        "columns": [column("Picture"), column("Reason")],
        "rows": rows,
    }


def summary_notes(summary: Summary) -> list[str]:
    notes = []
    left = {name: len(group.left_out) for name, group in summary.groups.items() if len(group.left_out)}
    if left:
        most = max(left.values())
        notes.append(f"clusters are of an even sample of the maps where there are many (up to {most:,} left out)")
    blank = len(summary.groups[None].blank)
    if blank:
        notes.append(f"{blank:,} maps hold no positive evidence: they are in no cluster")
    few = sum(1 for row in summary.classes if len(row.members) < FEWEST)
    if few:
        notes.append(
            f"{few:,} of {len(summary.classes):,} classes have fewer than {FEWEST} pictures: clustered only among all"
        )
    return notes
