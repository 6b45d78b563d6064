"""Titles and descriptions of the statistics, and the texts about findings."""

from __future__ import annotations

from typing import NamedTuple


class StatisticText(NamedTuple):
    """Texts of one statistic. `high_title` and `low_title` head the images at its ends; "" if that end is not informative."""

    title: str
    description: str
    high_title: str
    low_title: str


STATISTIC_TEXTS = {
    "border": StatisticText(
        "Evidence at the border",
        "Fraction of the positive evidence in the outer eighth of each side. A constant map has 0.44 (dashed line).",
        "Most evidence at the border", "",
    ),
    "corner": StatisticText(
        "Evidence in one corner",
        "Largest fraction of the positive evidence in one corner (a quarter of each side). A constant map has 0.06.",
        "Most evidence in one corner", "",
    ),
    "inside": StatisticText(
        "Evidence inside the box or mask",
        "Fraction of the positive evidence inside the annotated object.",
        "", "Least evidence on the object",
    ),
    "spread": StatisticText(
        "Spread",
        "Root mean square distance of the positive evidence from its center, in image sides. A constant map has 0.41.",
        "Largest spread", "Smallest spread",
    ),
    "positive": StatisticText(
        "Positive evidence",
        "Sum of the positive values divided by the sum of the absolute values of the map.",
        "", "Least positive evidence",
    ),
    "center_x": StatisticText(
        "Center, left to right", "Center of mass of the positive evidence: 0 is the left edge, 1 the right edge.",
        "Farthest right", "Farthest left",
    ),
    "center_y": StatisticText(
        "Center, top to bottom", "Center of mass of the positive evidence: 0 is the top edge, 1 the bottom edge.",
        "Lowest", "Highest",
    ),
    "peak_x": StatisticText(
        "Peak, left to right", "Position of the strongest cell: 0 is the left edge, 1 the right edge.",
        "Farthest right", "Farthest left",
    ),
    "peak_y": StatisticText(
        "Peak, top to bottom", "Position of the strongest cell: 0 is the top edge, 1 the bottom edge.", "Lowest", "Highest",
    ),
    "confidence": StatisticText("Confidence", "Probability of the predicted class.", "", "Lowest confidence"),
}  # fmt: skip

NO_FINDINGS = "No group of images has its evidence in one corner or along the border, separate from all other images."
NO_FINDINGS_LIMITS = (
    "This does not prove that there is no shortcut: a cue in the center of the images, one that moves, or one in few images "
    "is not detected. Check the clusters and the images at the ends of the distributions, too."
)
FINDING_HINT = "To check whether the model relies on this region, cover it, or train without it."
