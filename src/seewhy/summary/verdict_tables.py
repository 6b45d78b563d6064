"""The tables of the summary page about the check."""

from __future__ import annotations

from seewhy.explanation.checks import LEVEL, VERDICTS
from seewhy.summary.page_parts import Entry, column, round_value
from seewhy.summary.verdicts import MIN_CHECKED, ClassShare, VerdictRow, Verdicts

MAX_CLASSES = 400  # on the page; class_checks.csv contains all
MEANINGS = {
    "confirmed": "covering what the map marks lowers the score, and turned copies of the map predict this less well",
    "not specific": "the map predicts the effect of covering, but so do turned copies of it",
    "inconclusive": "the effect of covering neither supports nor contradicts the map",
    "contradicted": "the score drops most where the map marks least",
    "not checked": "there is nothing to compare",
}
INTERVAL = "95% interval (Wilson)"


def verdict_table(verdicts: Verdicts) -> Entry:
    """Return the verdicts of each method, target and layer."""
    has_targets = len({row.target for row in verdicts.rows}) > 1
    columns = [
        column("Method"), *([column("Target")] if has_targets else []), column("Layer"),
        column("Verdicts", is_sortable=False, description="number of maps with each verdict"),
        column("Share confirmed", "percent", description="of the checked maps"),
        column("Standard error", "percent", description="of the share"),
        column("Checked", "count", description="maps with a verdict"),
        *(
            column(verdict.capitalize(), "count", description=MEANINGS[verdict], verdict=verdict)
            for verdict in VERDICTS
        ),
    ]  # fmt: skip
    rows = [
        [
            row.method, *([row.target] if has_targets else []), row.layer, verdict_bar(row), round_value(row.share.value),
            round_value(row.share.standard_error), row.share.checked, *row.counts.values(),
        ]
        for row in verdicts.rows
    ]  # fmt: skip
    meanings = "; ".join(f"{verdict}: {MEANINGS[verdict]}" for verdict in VERDICTS[:-1])
    description = (
        f"Parts of each image were covered, and the effect on the score was compared with the map. {verdicts.sentence()} "
        f"{meanings[0].upper()}{meanings[1:]}."
    )
    return {"id": "checks", "title": "Check of the maps", "description": description, "columns": columns, "rows": rows}


def verdict_bar(row: VerdictRow) -> Entry:
    return {"verdicts": [[verdict, count] for verdict, count in row.counts.items() if count]}


def class_check_table(verdicts: Verdicts) -> Entry:
    """Return the confirmed maps of each class. Sorting by a limit of the interval does not rank small classes by chance."""
    selected = verdicts.selected
    columns = [
        column("Class"), column("Checked", "count", description="maps with a verdict"), column("Confirmed", "count"),
        column("Share", "percent", is_sortable=False, description=f"of at least {MIN_CHECKED} checked maps"),
        column("At least", "percent", description=f"lower limit of the {INTERVAL}"),
        column("At most", "percent", description=f"upper limit of the {INTERVAL}"),
    ]  # fmt: skip
    description = (
        f"Confirmed maps of {selected.method} at {selected.layer} for each class, with the {INTERVAL} of their share. "
        f"Chance alone would confirm {LEVEL:.0%}."
    )
    few = sum(one.has_few for one in verdicts.classes)
    if few:
        noun = "class has" if few == 1 else "classes have"
        description += f" {few:,} {noun} fewer than {MIN_CHECKED} checked maps, so their share is not shown."
    if len(verdicts.classes) > MAX_CLASSES:
        description += f" These are the {MAX_CLASSES} largest; all {len(verdicts.classes):,} are in class_checks.csv."
    rows = [class_row(one) for one in verdicts.classes[:MAX_CLASSES]]
    return {
        "id": "class-checks",
        "title": "Check by class",
        "description": description,
        "columns": columns,
        "rows": rows,
    }


def class_row(one: ClassShare) -> list[object]:
    share, limits = one.share, map(round_value, one.share.interval)
    return [one.name, share.checked, share.confirmed, None if one.has_few else round_value(share.value), *limits]
