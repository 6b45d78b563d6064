"""Write docs/metrics.md: the cards of all metrics, between the text of docs/metrics.in.md.

Usage: .venv/bin/python docs/make_metrics.py
"""

from __future__ import annotations

from pathlib import Path

from seewhy.trust.metrics.metric import Metric
from seewhy.trust.metrics.metric_list import METRICS

HERE = Path(__file__).parent


def describe(metric: Metric) -> str:
    """Return the section of one metric."""
    card = metric.card
    better = "neither direction is better" if card.better == "neither" else f"{card.better} is better"
    filler = " One value for each filler." if metric.uses_filler else ""
    return "\n".join([
        f"### {metric.name}", "",
        f"{card.formula[0].upper()}{card.formula[1:]}.{filler} *{card.paper}*", "",
        f"* {better}; by chance: {card.chance}",
        f"* cost: {card.cost}",
        f"* trap: {card.trap}",
        f"* not defined if {card.undefined}",
    ])  # fmt: skip


def page() -> str:
    """Return the full page."""
    text = (HERE / "metrics.in.md").read_text("utf-8")
    return text.replace("{{ metrics }}", "## All metrics\n\n" + "\n\n".join(map(describe, METRICS)))


if __name__ == "__main__":
    (HERE / "metrics.md").write_text(page(), "utf-8")
