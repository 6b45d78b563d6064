"""The tables of the summary page about the check."""

from __future__ import annotations

from seewhy.explanation.checks import LEVEL, VERDICTS
from seewhy.summary.page_parts import Entry, column, round_value
from seewhy.summary.verdicts import MIN_CHECKED, VerdictRow, Verdicts

MAX_CLASSES = 400  # on the page; class_checks.csv contains all
MEANINGS = {
    "confirmed": "covering what the map marks lowers the score, and turned copies of the map predict this less well",
    "not specific": "the map predicts the effect of covering, but so do turned copies of it",
    "inconclusive": "the effect of covering neither supports nor contradicts the map",
    "contradicted": "the score drops most where the map marks least",
    "not checked": "there is nothing to compare, as for a map without positive evidence",
}


def verdict_table(verdicts: Verdicts) -> Entry:
    """Return the verdicts of each method, target and layer."""
    has_targets = verdicts.has_targets
    columns = [
        column("Method"), *([column("Target")] if has_targets else []), column("Layer"),
        column("Confirmed", "percent", description="share of the checked maps", verdict="confirmed"),
        column("\u00b1", "percent", description="standard error of this share"),
        column("Checked", "count", description="maps with a verdict"),
        column("Verdicts", is_sortable=False, description="number of maps with each verdict"),
        *(
            column(verdict.capitalize(), "count", description=MEANINGS[verdict], verdict=verdict)
            for verdict in VERDICTS[1:]
        ),
    ]  # fmt: skip
    rows = [
        [
            row.method, *([row.target] if has_targets else []), row.layer, round_value(row.share.value),
            round_value(row.share.standard_error), row.share.checked, verdict_bar(row),
            *(row.counts[verdict] for verdict in VERDICTS[1:]),
        ]
        for row in verdicts.rows
    ]  # fmt: skip
    description = (
        "Parts of each image were covered, and the effect on the score was compared with the map. "
        f"{verdicts.sentence()} \u00b1 is the standard error."
    )
    return {
        "id": "checks", "title": "Check of the maps", "description": description, "columns": columns, "rows": rows,
        "legend": list(MEANINGS.items()),
    }  # fmt: skip


def verdict_bar(row: VerdictRow) -> Entry:
    return {"verdicts": [[verdict, count] for verdict, count in row.counts.items() if count]}


def class_check_table(verdicts: Verdicts) -> Entry | None:
    """Return the confirmed maps of each class with enough maps; None if fewer than two classes have as many.

    The limits of the interval are sortable, so that a small class is not first or last by chance.
    """
    compared = [one for one in verdicts.classes if not one.has_few]
    if len(compared) < 2:
        return None
    interval = "95% interval (Wilson)"
    columns = [
        column("Class"), column("Checked", "count", description="maps with a verdict"), column("Confirmed", "count"),
        column("Share", "percent", is_sortable=False),
        column("At least", "percent", description=f"lower limit of the {interval}"),
        column("At most", "percent", description=f"upper limit of the {interval}"),
    ]  # fmt: skip
    description = (
        f"Confirmed maps of {verdicts.selected.method} at {verdicts.selected.layer}. \u201cAt least\u201d and \u201cAt "
        f"most\u201d are the {interval} of the share. Chance alone would confirm {LEVEL:.0%}."
    )
    if few := len(verdicts.classes) - len(compared):
        noun = "class has" if few == 1 else "classes have"
        description += f" {few:,} {noun} fewer than {MIN_CHECKED} checked maps: see the counts in the table of classes."
    if len(compared) > MAX_CLASSES:
        description += f" These are the {MAX_CLASSES} largest; all {len(compared):,} are in class_checks.csv."
    rows = [
        [one.name, one.share.checked, one.share.confirmed, *map(round_value, (one.share.value, *one.share.interval))]
        for one in compared[:MAX_CLASSES]
    ]
    return {
        "id": "class-checks",
        "title": "Check by class",
        "description": description,
        "columns": columns,
        "rows": rows,
    }
