"""One part after the other, from pictures to a part file: what every engine does, on whatever machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.compute as pc

from seewhy.bulk.batches import BatchExplainer, Hear, ignore
from seewhy.bulk.dataset import Item, PartSource
from seewhy.bulk.decoding import AHEAD, DecodedImage, Reader
from seewhy.bulk.label_resolver import LabelResolver
from seewhy.bulk.part_files import PartWriter
from seewhy.bulk.plan import Plan
from seewhy.bulk.rows import BatchItem
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.provenance import package_versions

MOST_PROBLEMS = 20  # of a part, to be shown
Value = TypeVar("Value")


@dataclass(frozen=True)
class Resources:
    """What a job may use; its rows do not depend on it. `workers` processes read pictures (0: a thread; None: what the engine
    finds fitting), `memory` is in bytes."""

    workers: int | None = None
    memory: int = 256 * 2**20


@dataclass(frozen=True)
class PartResult:
    """A part that is finished: its number, how many pictures it holds, how many of them failed, the first of these.

    `seconds` is None where only its file is known.
    """

    part: int
    pictures: int
    failed: int
    seconds: float | None
    problems: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Job:
    """All that it takes to write any part: the model, the pictures, the plan, the run's folder, what may be used."""

    loaded: LoadedModel
    items: PartSource
    plan: Plan
    out: Path
    means: Resources
    classes: LabelResolver


class Worker:
    """Writes parts of a job with one model; `tick` is told how many pictures more are explained."""

    def __init__(self, job: Job, hear: Hear = ignore, tick: Callable[[int], None] | None = None) -> None:
        self.job, self.tick = job, tick
        settings = dict(size=job.plan.batch, memory=job.means.memory)
        self.batches = BatchExplainer(job.loaded, job.plan.concrete, hear=hear, **settings)
        self.batches.proved = bool(job.plan.methods)  # a picture was explained before the first part was begun
        self.workers = 1 if job.means.workers is None else job.means.workers
        self.reader = Reader(job.loaded.preprocess, workers=self.workers, max_pixels=job.plan.questions.max_pixels)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop()

    def run(self, parts: Iterable[int]) -> Iterator[PartResult]:
        """Write the parts in this order; what comes after a part is read while it is explained."""
        source = ((part, item) for part in parts for item in self.tagged(part))
        stream = self.reader.stream(source, AHEAD * self.job.plan.batch + self.workers)
        start = time.monotonic()
        for part, found in groupby(stream, key=lambda tagged: tagged[0]):
            yield self.write(part, (read for _, read in found if read.item.id), start)
            start = time.monotonic()

    def tagged(self, part: int) -> Iterator[Item]:
        """The items of a part; of an empty one (a tar file without pictures) one without a name, so that it is written too."""
        empty = True
        for item in self.job.items.part(part):
            empty = False
            yield item
        if empty:
            yield Item("", "", error="empty")

    def write(self, part: int, reads: Iterable[DecodedImage], start: float) -> PartResult:
        """Write one part: its pictures in the batches in which they come, whatever happens to some of them."""
        problems: list[tuple[str, str]] = []
        with ExitStack() as stack:
            writer = stack.enter_context(PartWriter(self.job.out, self.job.plan.part_name(part), self.footer(part)))
            for some in batched(enumerate(reads), self.job.plan.batch):
                table = self.batches.rows(
                    [BatchItem(place, read, self.job.classes(read.item.label)) for place, read in some]
                )
                writer.write(table)
                failed = table.filter(pc.is_valid(table["error"])).select(["id", "error"]).to_pylist()
                writer.pictures += len(some)
                if self.tick is not None:
                    self.tick(len(some))
                writer.failed += len(failed)
                problems += [(row["id"], row["error"]) for row in failed[: MOST_PROBLEMS - len(problems)]]
        return PartResult(part, writer.pictures, writer.failed, time.monotonic() - start, tuple(problems))

    def footer(self, part: int) -> dict[str, Any]:
        """What stands at the end of a part file: the job, and the versions that wrote it."""
        return {**self.job.plan.to_dict(), "part": part, "versions": package_versions()}


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Lists of `size`, and of the rest.

    >>> list(batched("abc", 2))
    [['a', 'b'], ['c']]
    """
    source = iter(values)
    while some := list(islice(source, size)):
        yield some
