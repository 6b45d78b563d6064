"""Spectral clustering of maps: groups of images whose evidence lies in the same places.

Follows SpRAy (Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn", 2019): the
heatmaps are downsampled and normalized, each is linked to its nearest neighbors, and the eigenvectors of the normalized graph
Laplacian separate the groups. The largest gap between its eigenvalues determines their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.statistics import Float64Array, statistics
from seewhy.summary.normalization import normalize_to_sum

Indices = NDArray[np.intp]

MAX_SIDE = 8  # cells per side; the position of the evidence matters, not its outline
MIN_MAPS = 10  # with fewer maps, any split is likely due to chance
MAX_MAPS = 2000  # the time grows with the cube of the number (some seconds for 2000)
MAX_CLUSTERS = 8
MAX_EIGENVALUE = 1 / 8  # of a cluster: a cluster that loses a fraction p of its links has at most 2p, so p <= 1/16
REPRESENTATIVES = 9


@dataclass(frozen=True, eq=False)
class Cluster:
    """A cluster of similar maps.

    `members` are indices of maps, ascending; `ranked` are the same, most typical first (smallest mean distance to the others).
    `mean` (h, w) is the mean of the normalized positive evidence. `statistics` are those of the mean map, so "corner" is high
    only if the members share a corner; `mean_statistics` are the means over the members. `separation` is the fraction of the
    members' nearest neighbors that are members, in [0, 1]; 1 if there is only one cluster.
    """

    members: Indices
    ranked: Indices
    mean: Float64Array
    statistics: dict[str, float]
    mean_statistics: dict[str, float]
    separation: float

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def representatives(self) -> Indices:
        """The 9 most typical members."""
        return self.ranked[:REPRESENTATIVES]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The `clusters` of a set of maps, largest first.

    `blank` are the indices of maps without positive evidence, `unsampled` those beyond MAX_MAPS, of which an even sample is
    clustered; neither is in a cluster. `eigenvalues` are the smallest of the normalized Laplacian, ascending; empty if there
    were too few maps to cluster.
    """

    clusters: tuple[Cluster, ...]
    blank: Indices
    unsampled: Indices
    eigenvalues: Float64Array

    def reindex(self, rows: Indices) -> Clusters:
        """Replace each index i by `rows[i]`."""
        moved = (replace(one, members=rows[one.members], ranked=rows[one.ranked]) for one in self.clusters)
        return Clusters(tuple(moved), rows[self.blank], rows[self.unsampled], self.eigenvalues)


def find_clusters(maps: NDArray[np.float32], size: tuple[int, int]) -> Clusters:
    """Cluster signed maps (N, h, w) of inputs with `size` (height, width).

    The result does not depend on the order of the maps. Fewer than 10 distinct maps form one cluster; more require
    scikit-learn.

    >>> spots = np.zeros((24, 4, 4), np.float32)
    >>> spots[:12, 0, 0] = spots[12:, 3, 3] = 1
    >>> spots += np.random.default_rng(0).random(spots.shape, np.float32) / 10
    >>> [one.members.tolist() for one in find_clusters(spots, (32, 32)).clusters] == [[*range(12)], [*range(12, 24)]]
    True
    """
    evidence = normalize_to_sum(maps.astype(np.float64))
    is_lit = evidence.any((1, 2))
    evidence = evidence[is_lit]
    points = to_points(evidence) if len(evidence) else np.zeros((0, 1))
    # Sorting and sampling distinct points makes the result independent of the order of the rows.
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    kept = np.unique(np.linspace(0, len(distinct) - 1, min(MAX_MAPS, len(distinct))).round().astype(np.intp))
    used = np.isin(inverse, kept)
    positions = np.searchsorted(kept, inverse[used])
    labels, links, eigenvalues = cluster_points(distinct[kept])
    indices, counts = np.flatnonzero(is_lit)[used], np.bincount(positions, minlength=len(kept))
    clusters = []
    for label in np.unique(labels):
        own, is_member = np.flatnonzero(labels == label), labels[positions] == label
        distances = np.zeros(len(kept))
        distances[own] = mean_distances(distinct[kept[own]], counts[own])
        separation = fraction_of_inner_links(links, labels, label)
        members = indices[is_member]
        clusters.append(
            make_cluster(members, evidence[used][is_member], distances[positions[is_member]], separation, maps, size)
        )
    clusters.sort(key=lambda one: (-one.size, int(one.members[0])))
    return Clusters(tuple(clusters), np.flatnonzero(~is_lit), np.flatnonzero(is_lit)[~used], eigenvalues)


def to_points(evidence: Float64Array) -> Float64Array:
    """Return maps (N, h, w) of sum 1 as points (N, cells) whose Euclidean distance is the Hellinger distance of the maps.

    It is 0 for equal and 1 for disjoint maps. With the Euclidean distance of the maps, one very strong cell would outweigh all
    others.
    """
    _, *grid = evidence.shape
    rows, columns = (np.eye(cells) if cells <= MAX_SIDE else pooling_matrix(cells) for cells in grid)
    small = rows @ evidence @ columns.T
    return np.asarray(np.sqrt(small.reshape(len(evidence), -1).clip(min=0) / 2).round(6))


def pooling_matrix(cells: int) -> Float64Array:
    """Return the part of each cell that falls into each of MAX_SIDE equal intervals: (MAX_SIDE, cells), columns sum to 1."""
    edges = np.linspace(0, cells, MAX_SIDE + 1)
    low, high = edges[:-1, None], edges[1:, None]
    start = np.arange(cells)
    return np.asarray((np.minimum(high, start + 1) - np.maximum(low, start)).clip(min=0))


def cluster_points(points: Float64Array) -> tuple[Indices, NDArray[np.bool_], Float64Array]:
    """Return the cluster label of each point (N,), the nearest neighbor links (N, N), and the smallest eigenvalues."""
    count = len(points)
    if count < MIN_MAPS:
        return np.zeros(count, np.intp), np.zeros((count, count), bool), np.zeros(0)
    from sklearn.cluster import KMeans
    from sklearn.neighbors import kneighbors_graph

    links = kneighbors_graph(points, neighbor_count(count), include_self=False).toarray() > 0
    affinity = (links + links.T.astype(float)) / 2
    degree = affinity.sum(1)
    laplacian = np.eye(count) - affinity / np.sqrt(np.outer(degree, degree))
    values, vectors = np.linalg.eigh(laplacian)
    clusters = count_clusters(values)
    if clusters == 1:
        return np.zeros(count, np.intp), links, values[: MAX_CLUSTERS + 1]
    # Dividing by the root of the degree makes the rows equal within a cluster, whatever the degree of a point.
    embedded = vectors[:, :clusters] / np.sqrt(degree)[:, None]
    labels = KMeans(clusters, n_init=10, random_state=0).fit_predict(embedded)
    return labels.astype(np.intp), links, values[: MAX_CLUSTERS + 1]


def neighbor_count(count: int) -> int:
    """Return the number of linked neighbors, about 2 log2(count), which keeps a group connected."""
    return min(count - 1, round(2 * math.log2(count)))


def count_clusters(eigenvalues: Float64Array) -> int:
    """Return the number of ascending eigenvalues of a normalized Laplacian below their largest gap.

    Only gaps above small eigenvalues count: in data without groups, the largest gap can be anywhere.

    >>> count_clusters(np.array([0, 0.02, 0.4, 0.5, 0.6])), count_clusters(np.array([0, 0.2, 0.3, 0.6, 0.7]))
    (2, 1)
    """
    gaps = np.diff(eigenvalues[: MAX_CLUSTERS + 1])
    valid: Float64Array = np.where(eigenvalues[: len(gaps)] <= MAX_EIGENVALUE, gaps, 0.0)
    return 1 + int(np.argmax(valid))


def fraction_of_inner_links(links: NDArray[np.bool_], labels: Indices, label: np.intp) -> float:
    """Return the fraction of a cluster's nearest neighbor links that end inside it."""
    own = labels == label
    total = links[own].sum()
    return float(links[np.ix_(own, own)].sum() / total) if total else 1.0


def mean_distances(points: Float64Array, counts: Indices) -> Float64Array:
    """Return the mean distance of each distinct point (K,) to all points, each of which occurs `counts` times."""
    squares = (points**2).sum(1)
    distances = np.sqrt((squares[:, None] + squares - 2 * points @ points.T).clip(min=0))
    return np.asarray((distances @ counts / counts.sum()).round(9))


def make_cluster(
    members: Indices,
    evidence: Float64Array,
    distances: Float64Array,
    separation: float,
    maps: NDArray[np.float32],
    size: tuple[int, int],
) -> Cluster:
    mean = evidence.mean(0)
    ranked = members[np.lexsort((members, distances))]
    of_mean = {name: float(value[0]) for name, value in statistics(mean[None].astype(np.float32), size).items()}
    means = {name: float(np.nanmean(value)) for name, value in statistics(maps[members], size).items()}
    return Cluster(members, ranked, mean, of_mean, means, separation)
