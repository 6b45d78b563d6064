"""Kill real jobs and resume them: the part files must equal those of an undisturbed run, byte for byte."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kill_drill import STEPS, Drill

MODEL = "support.kill_drill:plain"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the drill finds Ray's actors in /proc")


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    home: Path = tmp_path_factory.mktemp("drill")
    yield Drill(home, model=MODEL)


def test_job_killed_before_a_rename_resumes(tmp_path: Path) -> None:
    """Three processes: the undisturbed run, the killed one, and the one that resumes."""
    Drill(tmp_path, model=MODEL, count=8).kill_at_steps(("before rename", 3))


@pytest.mark.full
def test_job_killed_at_every_step_resumes(drill: Drill) -> None:
    drill.kill_at_steps(*((step, 1 if step == "lock taken" else 2) for step in STEPS))


@pytest.mark.full
def test_job_killed_at_random_moments_resumes(drill: Drill) -> None:
    drill.kill_at_random(["driver", "driver"], "local", random.Random(1), max_delay=0.5)


@pytest.mark.full
def test_ray_job_survives_a_killed_actor_and_resumes_after_a_killed_driver(drill: Drill) -> None:
    drill.kill_at_random(["actor", "driver"], "ray", random.Random(2), max_delay=0.5)


@pytest.mark.full
def test_local_job_resumes_on_ray(drill: Drill) -> None:
    drill.resume_on_ray()
