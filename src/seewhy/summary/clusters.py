"""Groups of pictures that a network answers from the same places: spectral clustering of their maps.

After Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn" (2019), who call it
SpRAy: heat maps are made small and normalised, each is linked with its nearest neighbours, and the eigenvectors of the
graph's normalised Laplacian show groups that hold together; the gap in its eigenvalues says how many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.statistics import Float64Array, statistics
from seewhy.summary.normalization import shares

Indices = NDArray[np.intp]

SIDE = 8  # cells a side at most: where heat lies, not its outline; larger maps are averaged down
FEWEST = 10  # maps; among fewer, any split is a matter of chance
MOST = 2000  # maps that are clustered: the time grows with the cube (some seconds here)
COUNTS = 8  # clusters at most
LOOSE = 1 / 8  # eigenvalue of a cluster at most: one that loses a share p of its links has at most 2p, so a sixteenth
SHOWN = 9  # representatives


@dataclass(frozen=True, eq=False)
class Cluster:
    """Pictures with alike maps, of those that were clustered.

    `members` are their indices in the maps given, rising; `ranked` are the same, the most typical first (the least mean
    distance to the others). `mean` (h, w) is the mean of their heat, each map's sum 1. `statistics` are of that mean
    map, so `corner` is high only where the members share a corner; `means` are the means of the members' own.
    `apart` is the share of its members' nearest neighbours that are members too, in [0, 1]; 1 where nothing else is there.
    """

    members: Indices
    ranked: Indices
    mean: Float64Array
    statistics: dict[str, float]
    means: dict[str, float]
    apart: float

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def representatives(self) -> Indices:
        """At most 9 members, the most typical first."""
        return self.ranked[:SHOWN]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The `clusters` of a set of maps, the largest first.

    `blank` are indices of maps without heat and `left_out` those beyond MOST (an even sample is clustered); neither is in a
    cluster. `eigenvalues` are the smallest of the normalised Laplacian, rising; empty where there was too little to cluster.
    """

    clusters: tuple[Cluster, ...]
    blank: Indices
    left_out: Indices
    eigenvalues: Float64Array

    def at(self, rows: Indices) -> Clusters:
        """The same for maps that were `rows` (N,) of others: indices are those of the others."""
        moved = (replace(one, members=rows[one.members], ranked=rows[one.ranked]) for one in self.clusters)
        return Clusters(tuple(moved), rows[self.blank], rows[self.left_out], self.eigenvalues)


def find_clusters(maps: NDArray[np.float32], size: tuple[int, int]) -> Clusters:
    """Clusters of signed maps (N, h, w) of inputs of `size` (height, width); maps of one class, or of all.

    The same for any order of the maps. Fewer than 10 different maps with heat are one cluster. Needs scikit-learn from 10 on.

    >>> spots = np.zeros((24, 4, 4), np.float32)
    >>> spots[:12, 0, 0] = spots[12:, 3, 3] = 1
    >>> spots += np.random.default_rng(0).random(spots.shape, np.float32) / 10
    >>> [one.members.tolist() for one in find_clusters(spots, (32, 32)).clusters] == [[*range(12)], [*range(12, 24)]]
    True
    """
    heat = shares(maps.astype(np.float64))
    lit = heat.any((1, 2))
    heat = heat[lit]
    points = as_points(heat) if len(heat) else np.zeros((0, 1))
    # order, sample and ties by what the maps are, not by where they stand: any order of the rows gives the same
    distinct, of = np.unique(points, axis=0, return_inverse=True)
    of = of.reshape(-1)
    kept = np.unique(np.linspace(0, len(distinct) - 1, min(MOST, len(distinct))).round().astype(np.intp))
    used = np.isin(of, kept)
    place = np.searchsorted(kept, of[used])
    labels, links, eigenvalues = split(distinct[kept])
    indices, counts = np.flatnonzero(lit)[used], np.bincount(place, minlength=len(kept))
    found = []
    for label in np.unique(labels):
        own, inside = np.flatnonzero(labels == label), labels[place] == label
        distances = np.zeros(len(kept))
        distances[own] = mean_distances(distinct[kept[own]], counts[own])
        apart = neighbours_inside(links, labels, label)
        found.append(described(indices[inside], heat[used][inside], distances[place[inside]], apart, maps, size))
    found.sort(key=lambda one: (-one.size, int(one.members[0])))
    return Clusters(tuple(found), np.flatnonzero(~lit), np.flatnonzero(lit)[~used], eigenvalues)


def as_points(heat: Float64Array) -> Float64Array:
    """Maps (N, h, w) of sum 1 as points (N, cells) whose distance is that of Hellinger: 0 for the same heat, 1 for disjoint.

    Unlike Euclid's it takes maps as distributions: one hot cell does not outweigh all others.
    """
    _, *grid = heat.shape
    rows, columns = (np.eye(cells) if cells <= SIDE else pooling(cells) for cells in grid)
    small = rows @ heat @ columns.T
    return np.asarray(np.sqrt(small.reshape(len(heat), -1).clip(min=0) / 2).round(6))


def pooling(cells: int) -> Float64Array:
    """(SIDE, cells): what of each cell falls into each of SIDE equal parts of an axis; each column sums to 1."""
    edges = np.linspace(0, cells, SIDE + 1)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(cells)
    return np.asarray((np.minimum(high, at + 1) - np.maximum(low, at)).clip(min=0))


def split(points: Float64Array) -> tuple[Indices, NDArray[np.bool_], Float64Array]:
    """The cluster of each point (N,), who counts whom among its nearest (N, N), and the smallest eigenvalues."""
    count = len(points)
    if count < FEWEST:
        return np.zeros(count, np.intp), np.zeros((count, count), bool), np.zeros(0)
    from sklearn.cluster import KMeans
    from sklearn.neighbors import kneighbors_graph

    near = neighbours(count)
    links = kneighbors_graph(points, near, include_self=False).toarray() > 0
    affinity = (links + links.T.astype(float)) / 2
    degree = affinity.sum(1)
    laplacian = np.eye(count) - affinity / np.sqrt(np.outer(degree, degree))
    values, vectors = np.linalg.eigh(laplacian)
    number = by_eigengap(values)
    if number == 1:
        return np.zeros(count, np.intp), links, values[: COUNTS + 1]
    # divided by the root of the degree they are alike within a cluster, whether a point has many neighbours or few
    embedded = vectors[:, :number] / np.sqrt(degree)[:, None]
    labels = KMeans(number, n_init=10, random_state=0).fit_predict(embedded)
    return labels.astype(np.intp), links, values[: COUNTS + 1]


def neighbours(count: int) -> int:
    """How many nearest neighbours are linked: about 2 log2(count), so that what is one group is one piece."""
    return min(count - 1, round(2 * math.log2(count)))


def by_eigengap(values: Float64Array) -> int:
    """How many clusters rising eigenvalues of a normalised Laplacian speak of: as many as stand below the widest gap.

    Only gaps above small eigenvalues count. In a cloud without groups, or a band, the widest may come anywhere.

    >>> by_eigengap(np.array([0, 0.02, 0.4, 0.5, 0.6])), by_eigengap(np.array([0, 0.2, 0.3, 0.6, 0.7]))
    (2, 1)
    """
    steps = np.diff(values[: COUNTS + 1])
    ruled: Float64Array = np.where(values[: len(steps)] <= LOOSE, steps, 0.0)
    return 1 + int(np.argmax(ruled))


def neighbours_inside(links: NDArray[np.bool_], labels: Indices, label: np.intp) -> float:
    """The share of a cluster's links to nearest neighbours that end in it."""
    own = labels == label
    going = links[own].sum()
    return float(links[np.ix_(own, own)].sum() / going) if going else 1.0


def mean_distances(points: Float64Array, counts: Indices) -> Float64Array:
    """The mean distance of each of different points (K,) to all, each there `counts` times, however many that are."""
    squares = (points**2).sum(1)
    distances = np.sqrt((squares[:, None] + squares - 2 * points @ points.T).clip(min=0))
    return np.asarray((distances @ counts / counts.sum()).round(9))


def described(
    members: Indices,
    heat: Float64Array,
    distances: Float64Array,
    apart: float,
    maps: NDArray[np.float32],
    size: tuple[int, int],
) -> Cluster:
    mean = heat.mean(0)
    typical = members[np.lexsort((members, distances))]
    of_mean = {name: float(value[0]) for name, value in statistics(mean[None].astype(np.float32), size).items()}
    of_each = {name: float(np.nanmean(value)) for name, value in statistics(maps[members], size).items()}
    return Cluster(members, typical, mean, of_mean, of_each, apart)
