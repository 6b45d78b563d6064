"""What a summary found as tables for other programs."""

from __future__ import annotations

from typing import Any

from seewhy.summary.answers import NUMBERS
from seewhy.summary.document import Summary


def csv_tables(summary: Summary) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """What the page shows, and what it has no room for: file name, header, rows."""
    answers = summary.answers
    ids = answers.columns["id"]
    classes = [
        [row.index, row.name, len(row.members), row.right, row.confidence, *(row.means[name] for name in NUMBERS)]
        for row in summary.classes
    ]
    pairs = [
        [
            pair.label,
            pair.label_name,
            pair.predicted,
            pair.predicted_name,
            len(pair.members),
            " ".join(summary.ids(pair.members[:100])),
        ]
        for pair in summary.confusions
    ]
    far = [
        [name, rank, ids[at], score]
        for name, one in summary.outliers.items()
        for rank, (at, score) in enumerate(zip(one.indices, one.scores, strict=True), 1)
    ]
    clusters = [
        [summary.name_of(name), number, cluster.size, cluster.apart, ids[at], at in typical]
        for name, group in summary.groups.items()
        for number, cluster in enumerate(group.clusters, 1)
        for typical in [set(cluster.representatives.tolist())]
        for at in cluster.members.tolist()
    ]
    found = [
        [number, one.kind, summary.name_of(one.predicted), one.place, one.share, one.others, one.apart, ids[at]]
        for number, one in enumerate(summary.findings, 1)
        for at in one.indices
    ]
    return {
        "classes.csv": (["class", "name", "pictures", "right", "probability", *NUMBERS], classes),
        "confusions.csv": (["label", "label_name", "predicted", "predicted_name", "pictures", "ids"], pairs),
        "outliers.csv": (["statistic", "rank", "id", "deviations"], far),
        "clusters.csv": (["of", "cluster", "pictures", "apart", "id", "representative"], clusters),
        "findings.csv": (["finding", "kind", "of", "place", "share", "others", "apart", "id"], found),
    }
