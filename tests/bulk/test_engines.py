"""The Ray engine without Ray: what an actor receives and returns. Jobs on real actors are in test_kill_drill.py."""

from __future__ import annotations

import errno
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seewhy.bulk.dataset import SinglePart
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.engines import Actor, cause_of, divide_cpus
from seewhy.bulk.job import make_label_resolver
from seewhy.bulk.plan import make_plan
from seewhy.bulk.settings import BulkSettings
from seewhy.bulk.worker import Job, Resources
from seewhy.errors import UsageError
from support.bulk_jobs import OutOfMemoryAboveThree, load_small


def test_actor_returns_its_notes_with_the_part(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_small(OutOfMemoryAboveThree())
    dataset = find_dataset([str(photos)], 5)
    plan = replace(make_plan(loaded, dataset, BulkSettings(), 5), batch_size=5)
    out = tmp_path / "run"
    out.mkdir()
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: reference))
    job = Job(loaded, SinglePart(()), plan, out, Resources(workers=0), make_label_resolver(loaded, dataset))
    actor = Actor([job], gpu=False, threads=torch.get_num_threads())
    blocks = [{"part": np.array([part]), "source": [pickle.dumps(dataset.single_part(part))]} for part in (0, 1)]
    rows = [actor(block) for block in blocks]
    assert [row["part"] for row in rows] == [[0], [1]] and [row["images"] for row in rows] == [[5], [5]]
    assert rows[0]["notes"] == [["not enough memory for a batch of 5 images; using batches of 2 from now on"]]
    assert rows[1]["notes"] == [[]]


def test_a_resumed_job_uses_as_many_threads_as_an_uninterrupted_one() -> None:
    for cpus, requested, parts in ((2, 2, 20), (16, 4, 20), (16, 16, 3), (1, 8, 20), (8, 8, 1)):
        entire = divide_cpus(cpus, requested, parts, unfinished=parts)
        for unfinished in range(parts + 1):
            actors, threads = divide_cpus(cpus, requested, parts, unfinished)
            assert threads == entire[1] and 1 <= actors <= max(1, unfinished)
        assert entire[0] * entire[1] <= max(cpus, requested)  # the threads share the CPUs


def test_cause_of_a_ray_error() -> None:
    class RayError(Exception):
        def __init__(self, text: str, cause: Exception | None) -> None:
            super().__init__(text)
            self.cause = cause

    full, wrong = OSError(errno.ENOSPC, "No space left on device"), UsageError("no layer")
    assert cause_of(RayError("task failed", RayError("user code failed", full))) is full
    assert cause_of(RayError("task failed", wrong)) is wrong
    assert str(cause_of(RayError("the node died\nmore", None))) == "Ray: the node died. Finished parts are kept."
