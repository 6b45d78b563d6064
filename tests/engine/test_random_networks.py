"""Random networks: the answer and every map are those of references without hooks, for every selection of layers.

A failure names the seed and the smallest list of steps that still fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import pytest

from support.random_network_check import find_problem
from support.random_networks import Step, random_network, shrink

SHORT, CHUNK = 200, 20
LONG = 2000


def check(seeds: range, *, is_prepared: bool = False) -> None:
    networks = {seed: random_network(seed) for seed in seeds}
    if is_prepared:
        networks = {seed: network for seed, network in networks.items() if not has_ties(*network)}
    problems = {seed: find_problem(*network, seed, is_prepared=is_prepared) for seed, network in networks.items()}
    for seed, problem in problems.items():
        if problem:
            steps, head = random_network(seed)

            def fails_alike(
                fewer: tuple[Step, ...], head: int = head, seed: int = seed, start: str = problem[:12]
            ) -> bool:
                return find_problem(fewer, head, seed, is_prepared=is_prepared).startswith(start)

            smallest = shrink(steps, fails_alike)
            pytest.fail(
                f"seed {seed}: {find_problem(smallest, head, seed, is_prepared=is_prepared)}\nhead {head}, steps {smallest}"
            )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("start", range(0, SHORT, CHUNK))
def test_random_networks(start: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(range(start, start + CHUNK))


def kinds_in(steps: Iterable[Step]) -> set[str]:
    """Return the kinds of all steps, those inside blocks included."""
    steps = tuple(steps)
    return {step.kind for step in steps}.union(*(kinds_in(step.inner) for step in steps))


def has_ties(steps: Iterable[Step], head: int) -> bool:
    """Return True if a maximum may see equal values: rounding then decides which of them gets the gradient."""
    kinds = kinds_in(steps)
    return "upsample" in kinds and ("max_pool" in kinds or head % 3 == 1)  # a maximum over all cells


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("start", range(0, SHORT, CHUNK))
def test_random_networks_that_are_prepared(start: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(range(start, start + CHUNK), is_prepared=True)


@pytest.mark.full
@pytest.mark.parametrize("start", range(SHORT, LONG, 8 * CHUNK))
def test_many_random_networks_that_are_prepared(start: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(range(start, min(LONG, start + 8 * CHUNK)), is_prepared=True)


@pytest.mark.full
@pytest.mark.parametrize("start", range(SHORT, LONG, 8 * CHUNK))
def test_many_random_networks(start: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(range(start, min(LONG, start + 8 * CHUNK)))
