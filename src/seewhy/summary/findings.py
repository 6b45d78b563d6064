"""Findings: groups of pictures that a network seems to answer for the wrong reason, in words.

A watermark, a tag or a caption stands in the same place of many pictures, at the edge, away from what they show. So does the
heat of a network that goes by it. Three things must come together:

1. *A group*: maps of one predicted class (or of all pictures, for classes with few) that form a cluster, and one whose nearest
   neighbours are its own members. A cloud that k-means merely cut in two is none.
2. *One place at the edge*: the mean of its heat lies in one corner, or along the border, well beyond what even heat would
   give. Heat in different corners cancels in the mean; objects lie anywhere, mostly around the middle.
3. *Unlike the others*: the pictures outside the group do not look there. A network that looks at the same corner of every
   picture has a habit (padding, say), no shortcut of one class.

Where pictures carry a tag that the network does not go by, the heat is elsewhere, and nothing is found. A finding says where
to look; whether the tag matters is seen by covering it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.statistics import QUARTER, UNIFORM, Float64Array, statistics
from seewhy.summary.clusters import FEWEST, Cluster, Clusters, find_clusters
from seewhy.summary.normalization import shares

Indices = NDArray[np.intp]
Kind = Literal["corner", "border"]

SMALLEST = 5  # pictures: of fewer, a common place is soon a coincidence
APART = 0.75  # of the links to nearest neighbours stay inside: three of four
# Shares of the heat of the mean map, against even heat (1/16 and 0.44), and against the other pictures.
LEAST: dict[Kind, float] = {"corner": 4 * UNIFORM["corner"], "border": 1.5 * UNIFORM["border"]}
CONTRAST: dict[Kind, float] = {"corner": 2.0, "border": 1.5}
COVERED = 0.5  # of a group of all pictures that findings of classes name already: it would say the same again
SENTENCES = {
    "corner": "whose heat lies in the {place} corner (corner share {share:.2f}; the others {others:.2f})",
    "border": "whose heat lies along the border (border share {share:.2f}; the others {others:.2f})",
}


@dataclass(frozen=True, eq=False)
class Finding:
    """A group of pictures to look at. `kind` says where its heat lies; `predicted` is its class, None for one of all pictures.

    `indices` are the rows of its pictures, the most typical first, of `total` (the class's). `share` and `others` are the
    shares of heat in that place, of the group's mean map and that of all other pictures; `apart` is the cluster's.
    """

    kind: Kind
    predicted: int | None
    place: str
    indices: Indices
    total: int
    share: float
    others: float
    apart: float
    sentence: str


def find_groups(
    maps: NDArray[np.float32], predicted: NDArray[np.int_], size: tuple[int, int]
) -> dict[int | None, Clusters]:
    """Clusters of the maps of each predicted class with at least 10, and of all (None); members are rows of `maps`."""
    found: dict[int | None, Clusters] = {}
    for name in np.unique(predicted):
        rows = np.flatnonzero(predicted == name)
        if len(rows) >= FEWEST and len(rows) < len(maps):
            found[int(name)] = find_clusters(maps[rows], size).at(rows)
    return {**found, None: find_clusters(maps, size)}


def find_shortcuts(
    maps: NDArray[np.float32],
    predicted: NDArray[np.int_],
    size: tuple[int, int],
    names: Mapping[int, str] | None = None,
    groups: dict[int | None, Clusters] | None = None,
    word: str = "predicted as",
) -> list[Finding]:
    """Findings for signed maps (N, h, w) of inputs of `size` (height, width), with the class that each is of (N,).

    Those of classes first, each kind by the share of heat. `names` of classes are for the sentences, and `word` for how the
    pictures came to the class; `groups` are `find_groups` of the same maps, where they are there already.
    """
    heat = shares(maps)
    whole = heat.sum(0, dtype=np.float64)
    found: list[Finding] = []
    for name, group in (groups if groups is not None else find_groups(maps, predicted, size)).items():
        total = len(maps) if name is None else int((predicted == name).sum())
        of = "" if name is None else f" {word} {names[name] if names else f'class {name}'}"
        # an unsampled picture may be one of the group: it speaks neither for it nor against it
        others = whole - heat[group.left_out].sum(0, dtype=np.float64)
        new = [judged(cluster, group, name, total, of, heat, others, size) for cluster in group.clusters]
        kept = sorted((one for one in new if one), key=lambda one: (-one.share, int(one.indices[0])))
        if name is None and found:
            known = np.concatenate([one.indices for one in found])
            kept = [one for one in kept if np.isin(one.indices, known).mean() < COVERED]
        found += kept
    return found


def judged(
    cluster: Cluster,
    group: Clusters,
    name: int | None,
    total: int,
    of: str,
    heat: NDArray[np.float32],
    whole: Float64Array,
    size: tuple[int, int],
) -> Finding | None:
    """The finding that a cluster of a group is, if it is one. `heat` (N, h, w) is that of all, `whole` (h, w) its sum."""
    if cluster.size < SMALLEST or cluster.apart < APART or cluster.size + len(group.left_out) == len(heat):
        return None
    kinds: tuple[Kind, ...] = ("corner", "border")
    likely = [kind for kind in kinds if cluster.statistics[kind] >= LEAST[kind]]
    if not likely:
        return None
    rest = (whole - heat[cluster.members].sum(0, dtype=np.float64)).clip(min=0)
    if rest.sum() < 1e-6:  # of maps whose sum is 1: the others are blank, and this is the error of the difference
        rest = np.zeros_like(rest)
    outside = statistics(rest[None].astype(np.float32), size)
    for kind in likely:
        share, others = cluster.statistics[kind], float(np.nan_to_num(outside[kind][0]))
        if share >= CONTRAST[kind] * others:
            place = corner_of(cluster.mean) if kind == "corner" else "border"
            where = SENTENCES[kind].format(place=place, share=share, others=others)
            said = "lie in one cluster," if len(group.clusters) == 1 else "form a cluster of their own,"
            left = len(group.left_out)
            count = f"{total - left} sampled pictures" if left else f"{total} pictures"
            text = f"{cluster.size} of {count}{of} {said} {where}"
            return Finding(kind, name, place, cluster.ranked, total, share, others, cluster.apart, text)
    return None


def corner_of(mean: Float64Array) -> str:
    """The name of the corner where the most heat of a map (h, w) lies."""
    height, width = (max(1, round(cells * QUARTER)) for cells in mean.shape)
    corners = {
        "top left": mean[:height, :width],
        "top right": mean[:height, -width:],
        "bottom left": mean[-height:, :width],
        "bottom right": mean[-height:, -width:],
    }
    return max(corners, key=lambda name: float(corners[name].sum()))
