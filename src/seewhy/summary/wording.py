"""What the numbers of a summary are called, and what they mean, in words."""

from __future__ import annotations

# name: title, meaning, what a high and a low value show ("" where that end says nothing)
STATISTICS: dict[str, tuple[str, str, str, str]] = {
    "border": (
        "Heat at the border",
        "Share of the heat in the outer eighth of each side; heat that is the same everywhere has 0.44 (dashed).",
        "Most heat at the border", "",
    ),
    "corner": (
        "Heat in one corner",
        "Share of the heat in the corner (a quarter of each side) that has the most; the same everywhere gives 0.06.",
        "Most heat in one corner", "",
    ),
    "inside": (
        "Heat inside the box or mask",
        "Share of the heat that lies where the object is said to be.",
        "", "Least heat on the object",
    ),
    "spread": (
        "How spread out",
        "Root mean square distance of the heat from its centre, in sides of the picture; the same everywhere gives 0.41.",
        "Most spread out", "Most gathered",
    ),
    "positive": (
        "Share that speaks for it",
        "Sum of the positive evidence over the sum of all, without its sign.",
        "", "Least speaks for the answer",
    ),
    "center_x": (
        "Centre, from left to right", "Centre of mass of the heat: 0 is the left edge.", "Farthest right", "Farthest left",
    ),
    "center_y": ("Centre, from top to bottom", "Centre of mass of the heat: 0 is the top.", "Lowest", "Highest"),
    "peak_x": (
        "Strongest place, left to right", "Where the heat is strongest: 0 is the left edge.", "Farthest right", "Farthest left",
    ),
    "peak_y": ("Strongest place, top to bottom", "Where the heat is strongest: 0 is the top.", "Lowest", "Highest"),
    "confidence": ("Confidence", "Probability of the predicted class.", "", "Least sure"),
}  # fmt: skip

QUIET = (
    "Nothing. No group of pictures has its heat in one corner, or along the border, apart from all others. This is no proof: a "
    "cue in the middle of the picture, one that moves about, or one in few pictures is not seen like this. Look at the ends "
    "of the distributions, and at the clusters, too."
)
LOOK = "Whether the network goes by it is seen by covering the place, or by training without it."
NOTHING_FOUND = (
    "nothing stands out: no group of pictures has its heat in one corner, or along the border, apart from all others"
)
