"""What `seewhy summary` says of many maps: outliers, clusters and findings, on maps whose answer is known."""

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
from seewhy.summary.normalization import shares
from seewhy.summary.outliers import find_outliers

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

SIZE = (224, 224)
Maps = NDArray[np.float32]


def blobs(places: list[tuple[float, float]], side: int = 7, wander: float = 0.5, seed: int = 0) -> Maps:
    """Maps (N, side, side) with a round blob near each place (down, across), in cells of 7, on a faint floor."""
    random = np.random.default_rng(seed)
    y, x = (np.mgrid[:side, :side] + 0.5) * 7 / side
    centres = np.array(places) + random.normal(0, wander, (len(places), 2))
    gauss = [np.exp(-((y - down) ** 2 + (x - across) ** 2) / 2) for down, across in centres]
    return (np.array(gauss) * random.uniform(0.5, 20, (len(places), 1, 1)) + 0.01).astype(np.float32)


def planted(seed: int = 0, corner: tuple[float, float] = (0.7, 0.7), marked: int = 30, plain: int = 70) -> Maps:
    """`marked` maps with heat in a corner, then `plain` ones around the middle."""
    marks, others = (
        blobs([corner] * marked, wander=0.2, seed=seed),
        blobs([(3.5, 3.5)] * plain, wander=0.4, seed=seed + 1),
    )
    return np.concatenate([marks, others])


def members(found: Clusters) -> list[list[int]]:
    return [one.members.tolist() for one in found.clusters]


def clustered(found: Clusters) -> list[int]:
    return [row for one in found.clusters for row in one.members.tolist()]


# outliers


def test_outliers_are_the_farthest_first_in_robust_standard_deviations() -> None:
    values = np.array([1.0, 2, 3, 4, 100, -50, np.nan])
    found = find_outliers({"spread": values})["spread"]
    assert found.indices.tolist()[:2] == [4, 5]
    # the median is 2.5, the absolute deviations .5 .5 1.5 1.5 52.5 97.5
    assert np.allclose(found.scores[:2], np.array([97.5, -52.5]) / (1.4826 * 1.5))
    assert found.far == 2 and 6 not in found.indices


def test_one_huge_outlier_does_not_hide_another() -> None:
    values = np.r_[np.linspace(0, 1, 20), 1e6, 10]
    assert find_outliers({"spread": values})["spread"].far == 2


@pytest.mark.parametrize("name", ["border", "corner"])
def test_only_much_heat_at_the_edge_is_unusual(name: str) -> None:
    found = find_outliers({name: np.array([0.5, 0.52, 0.48, 0.51, 0.0, 0.9])})[name]
    assert found.indices[0] == 5 and 4 not in found.indices
    assert found.far == 1


def test_equal_scores_stand_in_the_order_of_the_rows() -> None:
    values = np.array([0.0, 5, 0, -5, 1, -1, 5])
    assert find_outliers({"peak_x": values}, most=3)["peak_x"].indices.tolist() == [1, 3, 6]


def test_mostly_equal_numbers_have_outliers_and_equal_ones_none() -> None:
    found = find_outliers(
        {"peak_x": np.array([0.5] * 20 + [0.9]), "peak_y": np.full(21, 0.5), "spread": np.full(21, np.nan)}
    )
    assert found["peak_x"].indices.tolist() == [20] and found["peak_x"].far == 1
    assert not len(found["peak_y"].indices) and not len(found["spread"].indices)


def test_edge_takes_the_more_unusual_of_border_and_corner() -> None:
    calm = np.linspace(0, 0.1, 10)
    found = find_outliers({"border": np.r_[calm, 1.0, 0.05], "corner": np.r_[calm, 0.05, 0.9]})
    assert found["edge"].indices.tolist()[:2] == [10, 11]
    assert "edge" not in find_outliers({"border": calm})


def test_no_pictures_have_no_outliers() -> None:
    assert not len(find_outliers({"border": np.zeros(0), "corner": np.zeros(0)})["edge"].indices)


# clusters


@pytest.mark.parametrize("side", [4, 7, 14, 56])
def test_three_places_are_three_clusters(side: int) -> None:
    maps = blobs([(1, 1)] * 30 + [(1, 6)] * 25 + [(6, 3)] * 20, side, wander=0.2)
    found = find_clusters(maps, SIZE)
    assert members(found) == [[*range(30)], [*range(30, 55)], [*range(55, 75)]]
    assert all(one.apart > 0.95 for one in found.clusters)


def test_one_place_is_one_cluster() -> None:
    for seed in range(5):
        assert len(find_clusters(blobs([(3.5, 3.5)] * 80, wander=1, seed=seed), SIZE).clusters) == 1


def test_strength_and_negative_evidence_do_not_count() -> None:
    maps = planted()
    factors = np.geomspace(1e-3, 1e3, len(maps), dtype=np.float32)[:, None, None]
    changed = np.where(maps > 0.05, maps * factors, -maps)
    assert members(find_clusters(changed, SIZE)) == members(find_clusters(np.where(maps > 0.05, maps, 0), SIZE))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_the_rows_gives_the_same_clusters(seed: int) -> None:
    maps = np.concatenate([planted(seed), planted(seed)[:40]])  # some of them twice
    order = np.random.default_rng(seed).permutation(len(maps))
    found, again = find_clusters(maps, SIZE), find_clusters(maps[order], SIZE)
    assert sorted(map(sorted, members(found))) == sorted(
        sorted(order[one].tolist()) for one in map(np.array, members(again))
    )
    assert np.allclose(found.eigenvalues, again.eigenvalues)
    assert members(found) == members(find_clusters(maps, SIZE))


def test_representatives_are_the_most_typical() -> None:
    maps = blobs([(3.5, 3.5)] * 12, wander=0.1)
    maps[7] = blobs([(1, 5)], wander=0)[0]
    one = find_clusters(maps[:9], SIZE).clusters[0]
    assert one.size == len(one.ranked) == 9 and one.ranked[-1] == 7
    assert len(find_clusters(planted(), SIZE).clusters[0].representatives) == 9


def test_a_cluster_tells_its_mean_and_where_it_lies() -> None:
    maps = blobs([(0.7, 0.7)] * 5 + [(6.3, 6.3)] * 4, wander=0)
    one = find_clusters(maps, SIZE).clusters[0]
    assert one.mean.sum() == pytest.approx(1) and one.apart == 1
    each = statistics(maps, SIZE)
    assert one.means["corner"] == pytest.approx(each["corner"].mean())
    # opposite corners: each map has much in one, their mean about half as much
    assert one.statistics["corner"] < 0.6 * one.means["corner"]


@pytest.mark.parametrize("count", range(12))
def test_few_maps_are_one_cluster(count: int) -> None:
    found = find_clusters(planted(marked=6, plain=6)[:count], SIZE)
    assert sorted(clustered(found)) == [*range(count)]
    assert len(found.clusters) == (count > 0) or count >= 10


def test_blank_and_broken_maps_are_in_no_cluster() -> None:
    maps = planted()
    maps[3], maps[5], maps[8] = 0, -1, np.nan
    maps[12, 2, 2], maps[14, 0, 0] = np.nan, np.inf
    found = find_clusters(maps, SIZE)
    assert found.blank.tolist() == [3, 5, 8]
    assert sorted(clustered(found)) == [row for row in range(100) if row not in (3, 5, 8)]
    assert all(np.isfinite(one.mean).all() for one in found.clusters)
    assert not find_clusters(np.zeros((20, 7, 7), np.float32), SIZE).clusters


def test_equal_maps_are_one_cluster() -> None:
    assert members(find_clusters(np.ones((50, 7, 7), np.float32), SIZE)) == [[*range(50)]]


def test_too_many_maps_are_sampled_and_the_rest_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(clusters, "MOST", 60)
    found = find_clusters(planted(), SIZE)
    used = clustered(found)
    assert len(used) == 60 and sorted(used + found.left_out.tolist()) == [*range(100)]
    assert any(max(one) < 30 for one in members(found))  # the corner is still a cluster of its own


# findings


@pytest.mark.parametrize(
    ("corner", "name"), [((0.7, 0.7), "top left"), ((6.3, 0.7), "bottom left"), ((6.3, 6.3), "bottom right")]
)
def test_a_corner_that_half_a_class_is_decided_by_is_found(corner: tuple[float, float], name: str) -> None:
    maps = planted(corner=corner)
    predicted = np.array([1] * 60 + [0] * 40)
    (found,) = find_shortcuts(maps, predicted, SIZE, names={0: "cat", 1: "dog"})
    assert sorted(found.indices.tolist()) == [*range(30)]
    assert (found.kind, found.predicted, found.place, found.total) == ("corner", 1, name, 60)
    assert found.share > 0.5 and found.others < 0.1
    assert found.sentence.startswith(
        f"30 of 60 pictures predicted as dog form a cluster of their own, whose heat lies in the {name} corner"
    )


def test_a_whole_class_that_looks_at_a_corner_is_found() -> None:
    (found,) = find_shortcuts(planted(), np.array([1] * 30 + [0] * 70), SIZE)
    assert found.predicted == 1 and len(found.indices) == found.total == 30
    assert "30 of 30 pictures predicted as class 1 lie in one cluster, whose heat" in found.sentence


def test_a_sentence_says_how_the_pictures_came_to_the_class() -> None:
    (found,) = find_shortcuts(planted(), np.array([1] * 30 + [0] * 70), SIZE, word="labelled")
    assert found.sentence.startswith("30 of 30 pictures labelled class 1 lie in one cluster")


def test_what_was_not_sampled_is_not_among_the_others(monkeypatch: Any) -> None:
    """A class of 60 whose maps lie in one corner, 20 of them sampled: the other 40 are no reason against it."""
    monkeypatch.setattr(clusters, "MOST", 20)
    maps, predicted = planted(marked=60, plain=30), np.array([1] * 60 + [0] * 30)
    groups = find_groups(maps, predicted, SIZE)
    assert len(groups[1].left_out) == 40
    found = find_shortcuts(maps, predicted, SIZE, groups={1: groups[1]})[0]
    outside = statistics(shares(maps[60:]).mean(0, keepdims=True), SIZE)["corner"][0]
    assert found.others == pytest.approx(outside, abs=1e-6)
    assert found.sentence.startswith("20 of 20 sampled pictures predicted as class 1") and found.total == 60


def test_the_others_are_all_but_the_members() -> None:
    maps, predicted = planted(), np.array([1] * 60 + [0] * 40)
    (found,) = find_shortcuts(maps, predicted, SIZE)
    rest = np.delete(shares(maps), found.indices, axis=0).mean(0, keepdims=True)
    assert found.others == pytest.approx(statistics(rest, SIZE)["corner"][0], abs=1e-6)
    blank = np.concatenate([maps[:30], np.zeros((30, 7, 7), np.float32)])
    assert find_shortcuts(blank, np.array([1] * 30 + [0] * 30), SIZE)[0].others == 0


def test_maps_of_one_infinite_cell_do_not_weigh_more() -> None:
    maps = planted()
    maps[40, 3, 3] = np.inf
    assert shares(maps)[40].sum() == pytest.approx(1) and np.isfinite(shares(maps)).all()


def test_very_many_equal_maps_cost_nothing() -> None:
    maps = np.concatenate([np.repeat(planted(marked=1, plain=1), 50_000, axis=0), planted()])
    before = time.perf_counter()
    (one,) = find_clusters(maps[:100_000], SIZE).clusters
    assert one.size == 100_000 and len(one.representatives) == 9
    assert sum(each.size for each in find_clusters(maps, SIZE).clusters) == 100_100
    assert time.perf_counter() - before < 60
    few = np.concatenate([maps[:3], maps[-3:]])
    ranked = find_clusters(few, SIZE).clusters[0].ranked.tolist()
    roots = np.sqrt(shares(few.astype(np.float64)).reshape(6, -1) / 2)
    far = np.linalg.norm(roots[:, None] - roots, axis=2).mean(1).round(6)
    assert (np.diff(far[ranked]) >= 0).all()


def test_classes_of_few_pictures_are_looked_at_together() -> None:
    (found,) = find_shortcuts(planted(), np.arange(100), SIZE)
    assert found.predicted is None and sorted(found.indices.tolist()) == [*range(30)]


def test_a_frame_is_found() -> None:
    frames = np.full((20, 14, 14), 0.02, np.float32) * np.random.default_rng(0).uniform(0.5, 1.5, (20, 14, 14)).astype(
        np.float32
    )
    frames[:, -1] += 1
    plain = blobs([(3.5, 3.5)] * 60, side=14, wander=1)
    (found,) = find_shortcuts(np.concatenate([frames, plain]), np.zeros(80, int), SIZE)
    assert found.kind == "border" and sorted(found.indices.tolist()) == [*range(20)]


def test_a_habit_of_all_pictures_is_no_finding() -> None:
    maps = blobs([(0.7, 0.7)] * 100, wander=0.3)
    assert not find_shortcuts(maps, np.arange(100) % 2, SIZE)


def test_different_corners_are_no_finding() -> None:
    every = [(0.7, 0.7), (0.7, 6.3), (6.3, 0.7), (6.3, 6.3)] * 2
    maps = np.concatenate([blobs(every, wander=0), blobs([(3.5, 3.5)] * 60, wander=1)])
    assert not find_shortcuts(maps, np.array([1] * 8 + [0] * 60), SIZE)


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_maps_are_no_finding(seed: int) -> None:
    random = np.random.default_rng(seed)
    wide = blobs([tuple(place) for place in random.uniform(1.5, 5.5, (120, 2))], wander=0.3, seed=seed)
    assert not find_shortcuts(wide, random.integers(0, 3, 120), SIZE)


def test_too_few_and_too_odd_pictures_are_no_finding() -> None:
    assert not find_shortcuts(planted(marked=3, plain=60), np.zeros(63, int), SIZE)
    assert not find_shortcuts(np.zeros((0, 7, 7), np.float32), np.zeros(0, int), SIZE)
    assert not find_shortcuts(np.full((40, 7, 7), np.nan, np.float32), np.zeros(40, int), SIZE)


def test_groups_are_of_rows_of_the_run() -> None:
    predicted = np.array([1, 0] * 50)
    groups = find_groups(planted(), predicted, SIZE)
    assert set(groups) == {0, 1, None}
    assert {row % 2 for one in groups[1].clusters for row in one.members.tolist()} == {0}
    assert {row % 2 for one in groups[0].clusters for row in one.ranked.tolist()} == {1}
