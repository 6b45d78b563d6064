"""Write part files one after the other: the work that every engine runs, on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.compute as pc

from seewhy.bulk.batch_explainer import BatchExplainer, Log, ignore
from seewhy.bulk.dataset import Item, PartSource
from seewhy.bulk.decoding import AHEAD, DecodedImage, Reader
from seewhy.bulk.explaining_threads import ExplainingThreads
from seewhy.bulk.failures import RepeatedFailures
from seewhy.bulk.label_resolver import LabelResolver
from seewhy.bulk.part_files import PartWriter
from seewhy.bulk.plan import Plan
from seewhy.bulk.rows import BatchItem
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.provenance import package_versions

MAX_PROBLEMS = 20  # per part, for the terminal and the log
Value = TypeVar("Value")


@dataclass(frozen=True)
class Resources:
    """What a job may use. The rows do not depend on it.

    `workers` is the number of decoder processes (0: a thread; None: the engine decides), `memory` is in megabytes.
    """

    workers: int | None = None
    memory: float = 256


@dataclass(frozen=True)
class PartResult:
    """A finished part: its number, its images, and how many failed. `problems` are (id, error) of the first failed images.

    `seconds` is None if only the file is known.
    """

    part: int
    images: int
    failed: int
    seconds: float | None
    problems: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Job:
    """Everything needed to write a part: the model, the images, the plan, the run folder, the resources."""

    loaded: LoadedModel
    source: PartSource
    plan: Plan
    out: Path
    resources: Resources
    resolve_label: LabelResolver


class Worker:
    """Writes parts of a job with one model.

    `on_progress` receives the number of images after each batch. `explainers` is the number of threads that explain batches.
    """

    def __init__(
        self, job: Job, log: Log = ignore, on_progress: Callable[[int], None] | None = None, explainers: int = 1
    ) -> None:
        self.job, self.on_progress = job, on_progress
        failures = RepeatedFailures()

        def make_explainer() -> BatchExplainer:
            return BatchExplainer(
                job.loaded,
                job.plan.resolved_settings,
                batch_size=job.plan.batch_size,
                memory=job.resources.memory / explainers,
                is_validated=bool(job.plan.methods),  # calibration explained an image
                log=log,
                failures=failures,
            )

        self.threads = ExplainingThreads(make_explainer, explainers)
        self.workers = 1 if job.resources.workers is None else job.resources.workers
        self.reader = Reader(job.loaded.preprocess, workers=self.workers, max_pixels=job.plan.settings.max_pixels)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop()
        self.threads.stop()  # last: it waits for the current batches

    def run(self, parts: Iterable[int]) -> Iterator[PartResult]:
        """Write the parts in this order. Images of the next part are decoded while a part is explained."""
        tagged_items = ((part, item) for part in parts for item in self.items(part))
        ahead = (AHEAD + self.threads.count - 1) * self.job.plan.batch_size + self.workers
        stream = self.reader.stream(tagged_items, ahead)
        start = time.monotonic()
        for part, tagged_images in groupby(stream, key=lambda tagged: tagged[0]):
            yield self.write(part, (image for _, image in tagged_images if image.item.id), start)
            start = time.monotonic()

    def items(self, part: int) -> Iterator[Item]:
        """Yield the items of a part. An empty part (a tar file without images) yields one without id, so it gets a file."""
        is_empty = True
        for item in self.job.source.part(part):
            is_empty = False
            yield item
        if is_empty:
            yield Item("", "", error="empty")

    def write(self, part: int, images: Iterable[DecodedImage], start: float) -> PartResult:
        """Write the file of one part. Failed images become rows with an error."""
        problems: list[tuple[str, str]] = []
        with ExitStack() as stack:
            writer = stack.enter_context(PartWriter(self.job.out, self.job.plan.part_name(part), self.footer(part)))
            items_of_part = (
                BatchItem(position, image, self.job.resolve_label(image.item.label))
                for position, image in enumerate(images)
            )
            for items, table in self.threads.tables(batched(items_of_part, self.job.plan.batch_size)):
                writer.write(table)
                failed = table.filter(pc.is_valid(table["error"])).select(["id", "error"]).to_pylist()
                writer.images += len(items)
                writer.failed += len(failed)
                if self.on_progress is not None:
                    self.on_progress(len(items))
                problems += [(row["id"], row["error"]) for row in failed[: MAX_PROBLEMS - len(problems)]]
        return PartResult(part, writer.images, writer.failed, time.monotonic() - start, tuple(problems))

    def footer(self, part: int) -> dict[str, Any]:
        """Return the metadata of a part file: the job, and the package versions that wrote it."""
        return {**self.job.plan.to_dict(), "part": part, "versions": package_versions()}


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Yield lists of `size` values; the last one may be shorter.

    >>> list(batched("abc", 2))
    [['a', 'b'], ['c']]
    """
    source = iter(values)
    while batch := list(islice(source, size)):
        yield batch
