"""A short form of tests/drill.py: a job killed at each step, at random, on Ray, and carried from here to Ray."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kill_drill import STEPS, Drill

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the drill finds Ray's actors in /proc")


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    home: Path = tmp_path_factory.mktemp("drill")
    yield Drill(home, model="support.kill_drill:plain")


def test_killed_at_each_step_a_job_goes_on_bit_for_bit(drill: Drill) -> None:
    drill.at_steps(*((step, 1 if step == "lock taken" else 2) for step in STEPS))


def test_killed_at_random_moments_a_job_goes_on_bit_for_bit(drill: Drill) -> None:
    drill.at_random(["driver", "driver"], "local", random.Random(1), longest=0.5)


def test_on_ray_a_job_outlives_an_actor_and_its_driver(drill: Drill) -> None:
    drill.at_random(["actor", "driver"], "ray", random.Random(2), longest=0.5)


def test_a_job_begun_here_goes_on_on_ray(drill: Drill) -> None:
    drill.crossing()
