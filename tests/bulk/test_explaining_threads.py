"""Several threads explain batches: the order, the rows and the errors are those of one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import seewhy
from seewhy.bulk import engines
from seewhy.bulk.explaining_threads import ExplainingThreads, explainer_count
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.tensors.random_state import preserve_rng


class Slow:
    """An explainer for numbers; earlier batches take longer."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def rows(self, batch: Any) -> Any:
        self.log.append(f"start {batch}")
        time.sleep(0.02 * (3 - batch % 3))
        self.log.append(f"end {batch}")
        return -batch


@pytest.fixture
def make_threads() -> Iterator[Any]:
    made: list[ExplainingThreads] = []

    def make(explainer: Any, count: int = 2) -> ExplainingThreads:
        made.append(ExplainingThreads(lambda: explainer, count))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_order_is_kept(count: int, make_threads: Any) -> None:
    log: list[str] = []
    threads = make_threads(Slow(log), count)
    assert list(threads.tables(range(7))) == [(number, -number) for number in range(7)]
    assert list(threads.tables(range(7, 9))) == [(7, -7), (8, -8)]  # the next part
    overlap = max(sum(line.startswith("start") for line in log[:end]) - sum(line.startswith("end") for line in log[:end])
                  for end in range(len(log) + 1))  # fmt: skip
    assert overlap == count


def test_few_batches_are_read_ahead(make_threads: Any) -> None:
    """Each batch in flight holds decoded images."""
    read: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(20):
            read.append(number)
            yield number

    for number, _ in make_threads(Slow([])).tables(batches()):
        assert len(read) <= number + 4


def test_errors_are_raised_in_order(make_threads: Any) -> None:
    class Failing(Slow):
        def rows(self, batch: Any) -> Any:
            if batch == 3:
                raise seewhy.UsageError("too many images failed")
            return super().rows(batch)

    done = []
    with pytest.raises(seewhy.UsageError, match="too many"):
        for number, _ in make_threads(Failing([])).tables(range(20)):
            done.append(number)
    assert done == [0, 1, 2]


def test_threads_end_and_torch_keeps_its_own() -> None:
    before = torch.get_num_threads()
    threads = ExplainingThreads(lambda: Slow([]), 2)  # type: ignore[arg-type, return-value]
    list(threads.tables(range(4)))  # type: ignore[arg-type]
    threads.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("explain")]
    assert torch.get_num_threads() == before
    seen: list[int] = []
    new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert seen == [before]


def test_a_network_that_draws_numbers_runs_in_one_thread_at_a_time(make_threads: Any) -> None:
    log: list[str] = []

    class Random(Slow):
        def rows(self, batch: Any) -> Any:
            with preserve_rng(torch.device("cpu")):
                torch.rand(1)
                return super().rows(batch)

    assert len(list(make_threads(Random(log)).tables(range(6)))) == 6
    assert log == [f"{event} {number}" for number in range(6) for event in ("start", "end")]


class NoisyNet(nn.Module):
    """Draws random numbers in its forward pass, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.conv(x).relu()
        return self.fc((features * torch.rand_like(features)).mean((2, 3)))  # type: ignore[no-any-return]


def rows_of(loaded: seewhy.LoadedModel, photos: Path, out: Path) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    settings = BulkSettings(layers=("conv",)) if isinstance(loaded.module, NoisyNet) else BulkSettings()
    execution = Execution(workers=0, batch_size=2, part_size=5)
    run_job(loaded, [str(photos)], out, settings, execution, quiet=True)
    return [row for path in sorted(out.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("is_noisy", [False, True])
def test_rows_are_those_of_one_thread(
    is_noisy: bool, small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = seewhy.load_model(NoisyNet(), preprocess=small.preprocess) if is_noisy else small
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # for each explainer: the last digits depend on it
    try:
        found = []
        for count in (1, 2, 2):
            monkeypatch.setattr(engines, "explainer_count", lambda model, count=count: count)
            found.append(rows_of(loaded, photos, tmp_path / str(len(found))))
    finally:
        torch.set_num_threads(before)
    assert found[0] and found[1] == found[0] and found[2] == found[0]


def test_number_of_explainers(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads, expected in ((1, 1), (2, 2), (16, 2)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert explainer_count(nn.Linear(2, 2)) == explainer_count(nn.ReLU()) == expected
        assert explainer_count(nn.Linear(2, 2, device="meta")) == 1  # any device but the CPU
