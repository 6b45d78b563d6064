"""Time contenders alternately in one process, so that load on the machine affects all of them."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Job = Callable[[], object]
SHORTEST_LAP = 0.15  # seconds; shorter jobs are repeated within a lap, or the clock measures the scheduler


@dataclass(frozen=True)
class Spread:
    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: list[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, median, high)


@dataclass(frozen=True)
class Times:
    """Seconds per contender and round; one value for contenders that ran once."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Return the spread of ratios, each computed within one round, where both contenders had the same conditions."""
        return spread([a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=False)])


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def lap(job: Job, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        job()
    return (time.perf_counter() - start) / repeats


def race(
    jobs: dict[str, Job], rounds: int, once: frozenset[str] = frozenset(), long: frozenset[str] = frozenset()
) -> Times:
    """Run all jobs in each round, in a new random order; jobs in `once` run in the first round only.

    Jobs named in `once` or `long` take seconds and are not warmed up.
    """
    # Two warm-ups; the faster one sets the number of repeats, because the first one includes allocations and cold caches.
    repeats = {name: min(lap(job, 1), lap(job, 1)) for name, job in jobs.items() if name not in once | long}
    repeats = {name: math.ceil(SHORTEST_LAP / seconds) for name, seconds in repeats.items()}
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        names = [name for name in jobs if number == 0 or name not in once]
        order.shuffle(names)
        gc.collect()
        with no_garbage_collection():
            for name in names:
                seconds[name].append(lap(jobs[name], repeats.get(name, 1)))
    return Times(seconds)
