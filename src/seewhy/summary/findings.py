"""Findings: groups of images that the model may classify for the wrong reason.

A watermark, a tag or a caption is at the same place in many images, at the edge, away from the object. The evidence of a model
that relies on it is at that place, too. A cluster is a finding if three conditions hold:

1. *It is a group*: a cluster of the maps of one class (or of all images, for small classes) whose nearest neighbors are mostly
   its own members. A continuous cloud that k-means cut in two is not a group.
2. *One place at the edge*: its mean map has much more evidence in one corner, or along the border, than a constant map.
   Evidence in different corners cancels in the mean, and objects are mostly near the center.
3. *Different from the others*: the other images have much less evidence there. A model that uses the same corner of every image
   has a bias (from padding, for example), not a shortcut for one class.

If images have a tag that the model does not rely on, the evidence is elsewhere, and there is no finding. A finding shows
where to look; covering the tag shows whether it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.statistics import QUARTER, UNIFORM, Float64Array, statistics
from seewhy.summary.clusters import MIN_MAPS, Cluster, Clusters, find_clusters
from seewhy.summary.normalization import normalize_to_sum

Indices = NDArray[np.intp]
Kind = Literal["corner", "border"]

MIN_IMAGES = 5  # fewer images share a location by chance
MIN_SEPARATION = 0.75  # three of four links to nearest neighbors stay inside the cluster
# Fraction of the mean map's evidence, relative to a constant map (1/16 and 0.44) and to the other images
MIN_FRACTION: dict[Kind, float] = {"corner": 4 * UNIFORM["corner"], "border": 1.5 * UNIFORM["border"]}
MIN_RATIO: dict[Kind, float] = {"corner": 2.0, "border": 1.5}
MAX_REPEATED = 0.5  # fraction of a cluster of all images that may already be in findings of single classes
LOCATIONS: dict[Kind, str] = {"corner": "in the {location} corner", "border": "along the border"}


@dataclass(frozen=True, eq=False)
class Finding:
    """A group of images to look at. `kind` and `location` are where its evidence lies; `class_index` is None for all images.

    `indices` are the rows of its images, most typical first, of `total` images of the class. `fraction` is the fraction of
    the evidence at that location in the group's mean map, `other_fraction` in the mean map of all other images. `separation`
    is that of the cluster.
    """

    kind: Kind
    class_index: int | None
    location: str
    indices: Indices
    total: int
    fraction: float
    other_fraction: float
    separation: float
    sentence: str


def find_groups(
    maps: NDArray[np.float32], classes: NDArray[np.int_], size: tuple[int, int]
) -> dict[int | None, Clusters]:
    """Cluster the maps of each class with at least 10 maps, and of all images (None). Members are rows of `maps`."""
    groups: dict[int | None, Clusters] = {}
    for index in np.unique(classes):
        rows = np.flatnonzero(classes == index)
        if len(rows) >= MIN_MAPS and len(rows) < len(maps):
            groups[int(index)] = find_clusters(maps[rows], size).reindex(rows)
    return {**groups, None: find_clusters(maps, size)}


def find_shortcuts(
    maps: NDArray[np.float32],
    classes: NDArray[np.int_],
    size: tuple[int, int],
    names: Mapping[int, str] | None = None,
    groups: dict[int | None, Clusters] | None = None,
    relation: str = "predicted as",
) -> list[Finding]:
    """Return the findings for signed maps (N, h, w) of inputs with `size` (height, width) and the class of each map (N,).

    Findings of single classes come first, in class order; within a class, the largest fraction comes first. `names` and
    `relation` ("predicted as") are for the sentences; `groups` is the result of `find_groups`, if already computed.
    """
    evidence = normalize_to_sum(maps)
    total_evidence = evidence.sum(0, dtype=np.float64)
    findings: list[Finding] = []
    for index, group in (groups if groups is not None else find_groups(maps, classes, size)).items():
        total = len(maps) if index is None else int((classes == index).sum())
        suffix = "" if index is None else f' {relation} "{(names or {}).get(index, f"class {index}")}"'
        # Images that were not sampled count neither as members nor as non-members.
        sampled = total_evidence - evidence[group.unsampled].sum(0, dtype=np.float64)
        candidates = [
            check_cluster(cluster, group, index, total, suffix, evidence, sampled, size) for cluster in group.clusters
        ]
        new = sorted((one for one in candidates if one), key=lambda one: (-one.fraction, int(one.indices[0])))
        if index is None and findings:
            known = np.concatenate([one.indices for one in findings])
            new = [one for one in new if np.isin(one.indices, known).mean() < MAX_REPEATED]
        findings += new
    return findings


def check_cluster(
    cluster: Cluster,
    group: Clusters,
    class_index: int | None,
    total: int,
    suffix: str,
    evidence: NDArray[np.float32],
    total_evidence: Float64Array,
    size: tuple[int, int],
) -> Finding | None:
    """Return the finding if a cluster meets all conditions. `total_evidence` (h, w) is the sum of `evidence` (N, h, w)."""
    if cluster.size < MIN_IMAGES or cluster.separation < MIN_SEPARATION:
        return None
    if cluster.size + len(group.unsampled) == len(evidence):  # there are no other images
        return None
    kinds: tuple[Kind, ...] = ("corner", "border")
    candidates = [kind for kind in kinds if cluster.statistics[kind] >= MIN_FRACTION[kind]]
    if not candidates:
        return None
    rest = (total_evidence - evidence[cluster.members].sum(0, dtype=np.float64)).clip(min=0)
    if rest.sum() < 1e-6:  # each map sums to 1, so this is the rounding error of the difference: the others are blank
        rest = np.zeros_like(rest)
    outside = statistics(rest[None].astype(np.float32), size)
    for kind in candidates:
        fraction, other_fraction = cluster.statistics[kind], float(np.nan_to_num(outside[kind][0]))
        if fraction >= MIN_RATIO[kind] * other_fraction:
            location = strongest_corner(cluster.mean) if kind == "corner" else "border"
            sampled = total - len(group.unsampled)
            count = f"{sampled} sampled images" if len(group.unsampled) else f"{total} images"
            verb = "form one cluster" if len(group.clusters) == 1 else "form a separate cluster"
            sentence = (
                f"{cluster.size} of {count}{suffix} {verb} with its evidence {LOCATIONS[kind].format(location=location)} "
                f"(fraction {fraction:.2f}, other images {other_fraction:.2f})"
            )
            return Finding(
                kind, class_index, location, cluster.ranked, total, fraction, other_fraction, cluster.separation, sentence
            )  # fmt: skip
    return None


def strongest_corner(mean: Float64Array) -> str:
    """Return the name of the corner of a map (h, w) with the most evidence."""
    height, width = (max(1, round(cells * QUARTER)) for cells in mean.shape)
    corners = {
        "top left": mean[:height, :width],
        "top right": mean[:height, -width:],
        "bottom left": mean[-height:, :width],
        "bottom right": mean[-height:, -width:],
    }
    return max(corners, key=lambda name: float(corners[name].sum()))
