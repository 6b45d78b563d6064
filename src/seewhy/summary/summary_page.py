"""The data of the summary page of one run. `viewer.build_summary` describes the format."""

from __future__ import annotations

import numpy as np

from seewhy.bulk.statistics import UNIFORM
from seewhy.summary.aggregates import compute_distributions, sort_rows
from seewhy.summary.clusters import MIN_MAPS, Cluster
from seewhy.summary.findings import Finding
from seewhy.summary.outliers import EDGE, THRESHOLD
from seewhy.summary.page_parts import EXTREMES, Entry, column, mean_map_url, round_value
from seewhy.summary.run_summary import RunSummary
from seewhy.summary.statistic_texts import FINDING_HINT, NO_FINDINGS, NO_FINDINGS_LIMITS, STATISTIC_TEXTS
from seewhy.summary.thumbnails import Thumbnails, draw_contrast, draw_heatmap, map_data_url
from seewhy.summary.verdict_tables import class_check_table, verdict_table

IMAGES_PER_ROW, IMAGES_PER_FINDING = 5, 18
MANY_CLASSES = 40  # with more classes, a row shows two images
MAX_CLASSES = 400  # on the page; classes.csv contains all
MAX_CONFUSIONS = 100
MAX_CLUSTERS = 60
MAX_FINDINGS = 20
MAX_FAILED = 2000
CLUSTER_STATISTICS = ("border", "corner", "spread")


def build_summary_data(summary: RunSummary) -> Entry:
    """Return the data of the page."""
    thumbnails, verdicts = Thumbnails(summary.table), summary.verdicts
    class_checks = None if verdicts is None else class_check_table(verdicts)
    data: Entry = {
        "facts": summary.facts(),
        "findings": [finding_entry(one, summary, thumbnails) for one in summary.findings[:MAX_FINDINGS]],
        "more_findings": more_findings(summary),
        "no_findings": f"{NO_FINDINGS} {NO_FINDINGS_LIMITS}",
        "statistics": statistic_entries(summary, thumbnails),
        "first_statistic": "inside" if summary.has_regions else "border",
        "statistics_note": "Number of images by value; the line is the median. Select a statistic to see its extreme images.",
        "tables": [
            *([verdict_table(verdicts)] if verdicts is not None else []),
            *([confusion_table(summary, thumbnails)] if summary.confusions else []),
            cluster_table(summary, thumbnails),
            class_table(summary, thumbnails),
            *([class_checks] if class_checks is not None else []),
            *([failed_table(summary)] if summary.table.failed else []),
        ],
        "notes": summary.notes(),
    }
    data["images"] = thumbnails.render()
    if thumbnails.missing:
        data["notes"].append(f"{thumbnails.missing} photos were not found; their thumbnails show the heatmap alone")
    return data


def more_findings(summary: RunSummary) -> str:
    """Return how many findings are not on the page, or "" if all are."""
    count = len(summary.findings) - MAX_FINDINGS
    return f"{count:,} more findings are in findings.csv." if count > 0 else ""


def finding_entry(finding: Finding, summary: RunSummary, thumbnails: Thumbnails) -> Entry:
    images = thumbnails.add(finding.indices, IMAGES_PER_FINDING)
    return {
        "text": f"{finding.sentence}.", "hint": FINDING_HINT, "images": images, "more": len(finding.indices) - len(images),
        "mean": mean_map_url(summary.table, finding.indices),
    }  # fmt: skip


def statistic_entries(summary: RunSummary, thumbnails: Thumbnails) -> list[Entry]:
    """Return each statistic with its distribution and the images at its ends; for the border, the ranked outliers."""
    order = list(STATISTIC_TEXTS)
    entries = []
    for one in sorted(compute_distributions(summary.table), key=lambda one: order.index(one.name)):
        text = STATISTIC_TEXTS[one.name]
        rows = sort_rows(summary.table.all_statistics[one.name])
        entries.append({
            "name": one.name, "title": text.title, "description": text.description, "counts": one.counts.tolist(),
            "median": round_value(one.median), "uniform": UNIFORM.get(one.name),
            "high_title": text.high_title, "low_title": text.low_title,
            "high": thumbnails.add(rows[::-1], EXTREMES) if text.high_title else [],
            "low": thumbnails.add(rows, EXTREMES) if text.low_title else [],
        })  # fmt: skip
    edge = summary.outliers[EDGE]
    border = next((entry for entry in entries if entry["name"] == "border"), None)
    if border is not None and len(edge.indices):
        known = int(np.isfinite(summary.table.statistics["border"]).sum())
        border["high_title"] = "Farthest from the median: evidence at the border or in a corner"
        border["high"] = thumbnails.add(edge.indices, 2 * EXTREMES)
        border["description"] += (
            f" By border or corner, {edge.count:,} of {known:,} images are more than {THRESHOLD} robust standard deviations "
            "above the median."
        )
    return entries


def class_table(summary: RunSummary, thumbnails: Thumbnails) -> Entry:
    table, has_labels = summary.table, summary.table.correct is not None
    shares = {one.index: one.share for one in summary.verdicts.classes} if summary.verdicts is not None else {}
    names = (*CLUSTER_STATISTICS, *(["inside"] if summary.has_regions else []))
    columns = [
        column("Mean map", is_sortable=False), column("Class"), column("Images", "count"),
        *([column("Correct", "percent", description="of the labeled images")] if has_labels else []),
        column("Probability", "percent", description="mean probability of the class"),
        *([column("Confirmed", is_sortable=False, description="of the checked maps")] if shares else []),
        *(column(name.capitalize(), "ratio", description=STATISTIC_TEXTS[name].description) for name in names),
        column("Most evidence at the border", is_sortable=False),
    ]  # fmt: skip
    limit = IMAGES_PER_ROW if len(summary.classes) <= MANY_CLASSES else 2
    rows = []
    for row in summary.classes[:MAX_CLASSES]:
        border = row.members[sort_rows(table.statistics["border"][row.members])[::-1]]
        rows.append([
            {"mean": map_data_url(draw_heatmap(row.mean, table.size)), "alt": f"mean map of {row.name}"}, row.name,
            len(row.members), *([row.accuracy] if has_labels else []), round_value(row.probability),
            *([f"{shares[row.index].confirmed:,} of {shares[row.index].checked:,}"] if shares else []),
            *(round_value(row.mean_statistics[name]) for name in names), {"images": thumbnails.add(border, limit)},
        ])  # fmt: skip
    description = "The mean map of each class; every image has the same weight."
    if len(summary.classes) > MAX_CLASSES:
        description += f" These are the {MAX_CLASSES} largest; all {len(summary.classes):,} are in classes.csv."
    return {"id": "classes", "title": "Classes", "description": description, "columns": columns, "rows": rows}


def cluster_table(summary: RunSummary, thumbnails: Thumbnails) -> Entry:
    """Return the clusters of all images, and of the classes with several clusters."""
    columns = [
        column("Mean map", is_sortable=False), column("Class"), column("Images", "count"),
        column("Separation", "ratio", description="fraction of the members' nearest neighbors that are members"),
        *(column(name.capitalize(), "ratio", description=STATISTIC_TEXTS[name].description) for name in CLUSTER_STATISTICS),
        column("Most typical", is_sortable=False),
    ]  # fmt: skip
    rows = []
    for index, cluster in select_clusters(summary):
        mean = map_data_url(draw_heatmap(cluster.mean, summary.table.size))
        rows.append([
            {"mean": mean, "alt": "mean map of the cluster"}, summary.class_name(index), cluster.size,
            round_value(cluster.separation), *(round_value(cluster.statistics[name]) for name in CLUSTER_STATISTICS),
            {"images": thumbnails.add(cluster.representatives, IMAGES_PER_ROW)},
        ])  # fmt: skip
    description = (
        "Groups of images with similar maps: spectral clustering of all images, and of each class with at least "
        f"{MIN_MAPS} images (as in SpRAy, Lapuschkin et al. 2019). The statistics are those of the mean map."
    )
    return {"id": "clusters", "title": "Clusters", "description": description, "columns": columns, "rows": rows}


def select_clusters(summary: RunSummary) -> list[tuple[int | None, Cluster]]:
    of_all = [(None, cluster) for cluster in summary.groups[None].clusters]
    of_classes = [
        (index, cluster)
        for index, group in summary.groups.items()
        if index is not None and len(group.clusters) > 1
        for cluster in group.clusters
    ]
    return [*of_all, *of_classes][:MAX_CLUSTERS]


def confusion_table(summary: RunSummary, thumbnails: Thumbnails) -> Entry:
    has_contrasts = any(pair.contrast is not None for pair in summary.confusions)
    columns = [
        *([column("Contrast", is_sortable=False)] if has_contrasts else []), column("Label"), column("Predicted"),
        column("Images", "count"), column("Examples", is_sortable=False),
    ]  # fmt: skip
    rows = []
    for pair in summary.confusions[:MAX_CONFUSIONS]:
        images = thumbnails.add(pair.members, IMAGES_PER_ROW)
        contrast: Entry | None = None
        if pair.contrast is not None:
            url = map_data_url(draw_contrast(pair.contrast, summary.table.size))
            contrast = {"mean": url, "alt": "mean contrast"}
        rows.append([
            *([contrast] if has_contrasts else []), pair.label_name, pair.predicted_name, len(pair.members),
            {"images": images, "more": len(pair.members) - len(images)},
        ])  # fmt: skip
    if has_contrasts:
        description = "Contrast: evidence for the predicted class (orange) minus evidence for the label (blue)."
    else:
        description = (
            "To see the contrast between the two classes, the run needs the maps of both: "
            "seewhy bulk ... --targets predicted,label"
        )
    return {"id": "confusions", "title": "Confusions", "description": description, "columns": columns, "rows": rows}


def failed_table(summary: RunSummary) -> Entry:
    failed = summary.table.failed
    rows = [list(pair) for pair in failed[:MAX_FAILED]]
    description = f"{len(failed):,} images have no map."
    columns = [column("Image"), column("Error")]
    return {"id": "failed", "title": "Failed", "description": description, "columns": columns, "rows": rows}
