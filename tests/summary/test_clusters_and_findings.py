"""Outliers, clusters and findings on maps whose result is known."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seewhy.bulk.statistics import statistics
from seewhy.summary import clusters
from seewhy.summary.clusters import Clusters, find_clusters
from seewhy.summary.findings import find_groups, find_shortcuts
from seewhy.summary.normalization import normalize_to_sum
from seewhy.summary.outliers import find_outliers

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

SIZE = (224, 224)
Maps = NDArray[np.float32]


def make_blobs(places: list[tuple[float, float]], side: int = 7, jitter: float = 0.5, seed: int = 0) -> Maps:
    """Return maps (N, side, side) with a round blob near each place (y, x), in cells of a 7x7 grid, on a low constant."""
    random = np.random.default_rng(seed)
    y, x = (np.mgrid[:side, :side] + 0.5) * 7 / side
    centers = np.array(places) + random.normal(0, jitter, (len(places), 2))
    gauss = [np.exp(-((y - down) ** 2 + (x - across) ** 2) / 2) for down, across in centers]
    return (np.array(gauss) * random.uniform(0.5, 20, (len(places), 1, 1)) + 0.01).astype(np.float32)


def make_marked_maps(
    seed: int = 0, corner: tuple[float, float] = (0.7, 0.7), marked: int = 30, plain: int = 70
) -> Maps:
    """Return `marked` maps with their evidence in a corner, then `plain` maps with theirs near the center."""
    marks, others = (
        make_blobs([corner] * marked, jitter=0.2, seed=seed),
        make_blobs([(3.5, 3.5)] * plain, jitter=0.4, seed=seed + 1),
    )
    return np.concatenate([marks, others])


def list_members(result: Clusters) -> list[list[int]]:
    return [one.members.tolist() for one in result.clusters]


def list_clustered(result: Clusters) -> list[int]:
    return [row for one in result.clusters for row in one.members.tolist()]


# Outliers


def test_outliers_are_ranked_by_robust_standard_deviations() -> None:
    values = np.array([1.0, 2, 3, 4, 100, -50, np.nan])
    outliers = find_outliers({"spread": values})["spread"]
    assert outliers.indices.tolist()[:2] == [4, 5]
    # the median is 2.5, the absolute deviations .5 .5 1.5 1.5 52.5 97.5
    assert np.allclose(outliers.scores[:2], np.array([97.5, -52.5]) / (1.4826 * 1.5))
    assert outliers.count == 2 and 6 not in outliers.indices


def test_one_huge_outlier_does_not_hide_another() -> None:
    values = np.r_[np.linspace(0, 1, 20), 1e6, 10]
    assert find_outliers({"spread": values})["spread"].count == 2


@pytest.mark.parametrize("name", ["border", "corner"])
def test_only_high_values_at_the_edge_are_outliers(name: str) -> None:
    outliers = find_outliers({name: np.array([0.5, 0.52, 0.48, 0.51, 0.0, 0.9])})[name]
    assert outliers.indices[0] == 5 and 4 not in outliers.indices
    assert outliers.count == 1


def test_equal_scores_keep_the_order_of_the_rows() -> None:
    values = np.array([0.0, 5, 0, -5, 1, -1, 5])
    assert find_outliers({"peak_x": values}, limit=3)["peak_x"].indices.tolist() == [1, 3, 6]


def test_outliers_among_mostly_equal_values() -> None:
    outliers = find_outliers(
        {"peak_x": np.array([0.5] * 20 + [0.9]), "peak_y": np.full(21, 0.5), "spread": np.full(21, np.nan)}
    )
    assert outliers["peak_x"].indices.tolist() == [20] and outliers["peak_x"].count == 1
    assert not len(outliers["peak_y"].indices) and not len(outliers["spread"].indices)


def test_edge_is_the_larger_score_of_border_and_corner() -> None:
    calm = np.linspace(0, 0.1, 10)
    outliers = find_outliers({"border": np.r_[calm, 1.0, 0.05], "corner": np.r_[calm, 0.05, 0.9]})
    assert outliers["edge"].indices.tolist()[:2] == [10, 11]
    assert "edge" not in find_outliers({"border": calm})


def test_empty_input_has_no_outliers() -> None:
    assert not len(find_outliers({"border": np.zeros(0), "corner": np.zeros(0)})["edge"].indices)


# Clusters


@pytest.mark.parametrize("side", [4, 7, 14, 56])
def test_three_places_are_three_clusters(side: int) -> None:
    maps = make_blobs([(1, 1)] * 30 + [(1, 6)] * 25 + [(6, 3)] * 20, side, jitter=0.2)
    result = find_clusters(maps, SIZE)
    assert list_members(result) == [[*range(30)], [*range(30, 55)], [*range(55, 75)]]
    assert all(one.separation > 0.95 for one in result.clusters)


def test_one_place_is_one_cluster() -> None:
    for seed in range(5):
        assert len(find_clusters(make_blobs([(3.5, 3.5)] * 80, jitter=1, seed=seed), SIZE).clusters) == 1


def test_scale_and_negative_evidence_do_not_change_clusters() -> None:
    maps = make_marked_maps()
    factors = np.geomspace(1e-3, 1e3, len(maps), dtype=np.float32)[:, None, None]
    changed = np.where(maps > 0.05, maps * factors, -maps)
    assert list_members(find_clusters(changed, SIZE)) == list_members(
        find_clusters(np.where(maps > 0.05, maps, 0), SIZE)
    )


@pytest.mark.parametrize("seed", range(3))
def test_clusters_do_not_depend_on_the_order_of_the_rows(seed: int) -> None:
    maps = np.concatenate([make_marked_maps(seed), make_marked_maps(seed)[:40]])  # some of them twice
    order = np.random.default_rng(seed).permutation(len(maps))
    result, reordered = find_clusters(maps, SIZE), find_clusters(maps[order], SIZE)
    assert sorted(map(sorted, list_members(result))) == sorted(
        sorted(order[one].tolist()) for one in map(np.array, list_members(reordered))
    )
    assert np.allclose(result.eigenvalues, reordered.eigenvalues)
    assert list_members(result) == list_members(find_clusters(maps, SIZE))


def test_representatives_are_the_most_typical() -> None:
    maps = make_blobs([(3.5, 3.5)] * 12, jitter=0.1)
    maps[7] = make_blobs([(1, 5)], jitter=0)[0]
    one = find_clusters(maps[:9], SIZE).clusters[0]
    assert one.size == len(one.ranked) == 9 and one.ranked[-1] == 7
    assert len(find_clusters(make_marked_maps(), SIZE).clusters[0].representatives) == 9


def test_cluster_has_its_mean_map_and_statistics() -> None:
    maps = make_blobs([(0.7, 0.7)] * 5 + [(6.3, 6.3)] * 4, jitter=0)
    one = find_clusters(maps, SIZE).clusters[0]
    assert one.mean.sum() == pytest.approx(1) and one.separation == 1
    each = statistics(maps, SIZE)
    assert one.mean_statistics["corner"] == pytest.approx(each["corner"].mean())
    # opposite corners: each map has much in one, their mean about half as much
    assert one.statistics["corner"] < 0.6 * one.mean_statistics["corner"]


@pytest.mark.parametrize("count", range(12))
def test_few_maps_are_one_cluster(count: int) -> None:
    result = find_clusters(make_marked_maps(marked=6, plain=6)[:count], SIZE)
    assert sorted(list_clustered(result)) == [*range(count)]
    assert len(result.clusters) == (count > 0) or count >= 10


def test_blank_and_non_finite_maps_are_in_no_cluster() -> None:
    maps = make_marked_maps()
    maps[3], maps[5], maps[8] = 0, -1, np.nan
    maps[12, 2, 2], maps[14, 0, 0] = np.nan, np.inf
    result = find_clusters(maps, SIZE)
    assert result.blank.tolist() == [3, 5, 8]
    assert sorted(list_clustered(result)) == [row for row in range(100) if row not in (3, 5, 8)]
    assert all(np.isfinite(one.mean).all() for one in result.clusters)
    assert not find_clusters(np.zeros((20, 7, 7), np.float32), SIZE).clusters


def test_equal_maps_are_one_cluster() -> None:
    assert list_members(find_clusters(np.ones((50, 7, 7), np.float32), SIZE)) == [[*range(50)]]


def test_too_many_maps_are_sampled(monkeypatch: Any) -> None:
    monkeypatch.setattr(clusters, "MAX_MAPS", 60)
    result = find_clusters(make_marked_maps(), SIZE)
    used = list_clustered(result)
    assert len(used) == 60 and sorted(used + result.unsampled.tolist()) == [*range(100)]
    assert any(max(one) < 30 for one in list_members(result))  # the corner is still a separate cluster


# Findings


@pytest.mark.parametrize(
    ("corner", "name"), [((0.7, 0.7), "top left"), ((6.3, 0.7), "bottom left"), ((6.3, 6.3), "bottom right")]
)
def test_corner_shared_by_half_of_a_class_is_a_finding(corner: tuple[float, float], name: str) -> None:
    maps = make_marked_maps(corner=corner)
    predicted = np.array([1] * 60 + [0] * 40)
    (finding,) = find_shortcuts(maps, predicted, SIZE, names={0: "cat", 1: "dog"})
    assert sorted(finding.indices.tolist()) == [*range(30)]
    assert (finding.kind, finding.class_index, finding.location, finding.total) == ("corner", 1, name, 60)
    assert finding.fraction > 0.5 and finding.other_fraction < 0.1
    assert finding.sentence.startswith(
        f'30 of 60 images predicted as "dog" form a separate cluster with its evidence in the {name} corner'
    )


def test_corner_shared_by_a_full_class_is_a_finding() -> None:
    (finding,) = find_shortcuts(make_marked_maps(), np.array([1] * 30 + [0] * 70), SIZE)
    assert finding.class_index == 1 and len(finding.indices) == finding.total == 30
    assert '30 of 30 images predicted as "class 1" form one cluster with its evidence' in finding.sentence


def test_sentence_uses_the_relation_to_the_class() -> None:
    (finding,) = find_shortcuts(make_marked_maps(), np.array([1] * 30 + [0] * 70), SIZE, relation="labeled")
    assert finding.sentence.startswith('30 of 30 images labeled "class 1" form one cluster')


def test_unsampled_images_do_not_count_as_others(monkeypatch: Any) -> None:
    """All 60 maps of a class are in one corner. 20 are sampled, and the other 40 must not count as others."""
    monkeypatch.setattr(clusters, "MAX_MAPS", 20)
    maps, predicted = make_marked_maps(marked=60, plain=30), np.array([1] * 60 + [0] * 30)
    groups = find_groups(maps, predicted, SIZE)
    assert len(groups[1].unsampled) == 40
    finding = find_shortcuts(maps, predicted, SIZE, groups={1: groups[1]})[0]
    outside = statistics(normalize_to_sum(maps[60:]).mean(0, keepdims=True), SIZE)["corner"][0]
    assert finding.other_fraction == pytest.approx(outside, abs=1e-6)
    assert finding.sentence.startswith('20 of 20 sampled images predicted as "class 1"') and finding.total == 60


def test_others_are_all_images_except_the_members() -> None:
    maps, predicted = make_marked_maps(), np.array([1] * 60 + [0] * 40)
    (finding,) = find_shortcuts(maps, predicted, SIZE)
    rest = np.delete(normalize_to_sum(maps), finding.indices, axis=0).mean(0, keepdims=True)
    assert finding.other_fraction == pytest.approx(statistics(rest, SIZE)["corner"][0], abs=1e-6)
    blank = np.concatenate([maps[:30], np.zeros((30, 7, 7), np.float32)])
    assert find_shortcuts(blank, np.array([1] * 30 + [0] * 30), SIZE)[0].other_fraction == 0


def test_infinite_cells_are_ignored() -> None:
    maps = make_marked_maps()
    maps[40, 3, 3] = np.inf
    assert normalize_to_sum(maps)[40].sum() == pytest.approx(1) and np.isfinite(normalize_to_sum(maps)).all()


def test_many_equal_maps_are_fast() -> None:
    maps = np.concatenate([np.repeat(make_marked_maps(marked=1, plain=1), 50_000, axis=0), make_marked_maps()])
    before = time.perf_counter()
    (one,) = find_clusters(maps[:100_000], SIZE).clusters
    assert one.size == 100_000 and len(one.representatives) == 9
    assert sum(each.size for each in find_clusters(maps, SIZE).clusters) == 100_100
    assert time.perf_counter() - before < 60
    few = np.concatenate([maps[:3], maps[-3:]])
    ranked = find_clusters(few, SIZE).clusters[0].ranked.tolist()
    roots = np.sqrt(normalize_to_sum(few.astype(np.float64)).reshape(6, -1) / 2)
    far = np.linalg.norm(roots[:, None] - roots, axis=2).mean(1).round(6)
    assert (np.diff(far[ranked]) >= 0).all()


def test_small_classes_are_clustered_together() -> None:
    (finding,) = find_shortcuts(make_marked_maps(), np.arange(100), SIZE)
    assert finding.class_index is None and sorted(finding.indices.tolist()) == [*range(30)]


def test_frame_along_the_border_is_a_finding() -> None:
    frames = np.full((20, 14, 14), 0.02, np.float32) * np.random.default_rng(0).uniform(0.5, 1.5, (20, 14, 14)).astype(
        np.float32
    )
    frames[:, -1] += 1
    plain = make_blobs([(3.5, 3.5)] * 60, side=14, jitter=1)
    (finding,) = find_shortcuts(np.concatenate([frames, plain]), np.zeros(80, int), SIZE)
    assert finding.kind == "border" and sorted(finding.indices.tolist()) == [*range(20)]


def test_corner_of_all_images_is_no_finding() -> None:
    maps = make_blobs([(0.7, 0.7)] * 100, jitter=0.3)
    assert not find_shortcuts(maps, np.arange(100) % 2, SIZE)


def test_different_corners_are_no_finding() -> None:
    every = [(0.7, 0.7), (0.7, 6.3), (6.3, 0.7), (6.3, 6.3)] * 2
    maps = np.concatenate([make_blobs(every, jitter=0), make_blobs([(3.5, 3.5)] * 60, jitter=1)])
    assert not find_shortcuts(maps, np.array([1] * 8 + [0] * 60), SIZE)


@pytest.mark.parametrize("seed", range(5))
def test_random_locations_are_no_finding(seed: int) -> None:
    random = np.random.default_rng(seed)
    wide = make_blobs([tuple(place) for place in random.uniform(1.5, 5.5, (120, 2))], jitter=0.3, seed=seed)
    assert not find_shortcuts(wide, random.integers(0, 3, 120), SIZE)


def test_few_images_and_invalid_maps_have_no_findings() -> None:
    assert not find_shortcuts(make_marked_maps(marked=3, plain=60), np.zeros(63, int), SIZE)
    assert not find_shortcuts(np.zeros((0, 7, 7), np.float32), np.zeros(0, int), SIZE)
    assert not find_shortcuts(np.full((40, 7, 7), np.nan, np.float32), np.zeros(40, int), SIZE)


def test_members_of_groups_are_rows_of_the_input() -> None:
    predicted = np.array([1, 0] * 50)
    groups = find_groups(make_marked_maps(), predicted, SIZE)
    assert set(groups) == {0, 1, None}
    assert {row % 2 for one in groups[1].clusters for row in one.members.tolist()} == {0}
    assert {row % 2 for one in groups[0].clusters for row in one.ranked.tolist()} == {1}
