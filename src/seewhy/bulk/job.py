"""Run a bulk job: start or resume it, compute the missing parts with an engine, log and report the outcome."""

from __future__ import annotations

import dataclasses
import errno
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from seewhy.bulk.calibration import calibrate
from seewhy.bulk.dataset import Dataset, ListDataset
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.engines import make_engine
from seewhy.bulk.job_log import EventLog, ProgressReporter, format_duration, is_own_log
from seewhy.bulk.job_record import JOB
from seewhy.bulk.label_resolver import LabelResolver
from seewhy.bulk.part_files import (
    finished_parts,
    locked,
    parts_of_shard,
    remove_lock,
    remove_temporary_files,
    run_files,
)
from seewhy.bulk.part_reader import PartCounts, PartError
from seewhy.bulk.part_verification import verify_part
from seewhy.bulk.plan import Plan, changed_versions, check_folder_name, make_plan, resume_plan
from seewhy.bulk.settings import LABEL, BulkSettings, Execution, parse_shard
from seewhy.bulk.worker import Job, PartResult, Resources
from seewhy.engine.inputs import with_fit
from seewhy.errors import OptionError, UsageError, os_error_reason
from seewhy.fast.prepared import as_prepared
from seewhy.models.inspection import count_classes
from seewhy.models.loaded_model import LoadedModel
from seewhy.storage import check_own, write_errors
from seewhy.storage.files import make_folders, remove_empty
from seewhy.storage.paths import check_folders, check_overwrite
from seewhy.terminal import make_console, printable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RUN_FILE_ENDINGS = (".json", ".jsonl", ".parquet", ".lock")
DIM = "bright_black"
MANY_PARTS = 200  # reading them takes seconds


@dataclass(frozen=True)
class Outcome:
    """The outcome of one start of a job."""

    images: int  # explained by this start
    images_before: int  # in parts that were already finished
    failed: int  # in both of the above
    parts: int  # of the job, all shards
    parts_left: int  # not finished, of all shards
    seconds: float

    def to_dict(self) -> dict[str, int | float]:
        return dataclasses.asdict(self)

    def summary(self, out: Path) -> str:
        """Return the outcome and the next step as text."""
        rate = f", {self.images / self.seconds:,.1f} per second" if self.images else ""
        lines = [f"{count_images(self.images)} in {format_duration(self.seconds)}{rate}"]
        if self.images_before:
            lines[0] += f"; {self.images_before:,} were finished before"
        if self.failed:
            lines.append(
                f"{count_images(self.failed)} failed; see the error column. When the cause is corrected, --retry-failed "
                "computes their parts again."
            )
        lines.append(f"Wrote {out}/part-*.parquet.")
        if self.parts_left:
            lines[-1] += f" {self.parts_left} of {self.parts} parts are left to other shards."
        elif self.failed < self.images + self.images_before:
            lines[-1] += f" Next: {shlex.join(['seewhy', 'summary', str(out)])}"
        return "\n".join(lines)


def count_images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class ShardParts:
    """The parts of a shard at the start of a job."""

    all: list[int]
    kept: dict[int, PartCounts]  # finished, with their counts
    todo: list[int]
    unwritten: set[int]  # those of `todo` that have no file, or a damaged one
    damaged: set[int]  # those of `todo` that have a damaged file

    @property
    def images(self) -> int:
        return sum(counts.images for counts in self.kept.values())

    @property
    def failed(self) -> int:
        return sum(counts.failed for counts in self.kept.values())


class BulkJob:
    """One start of a bulk job in the folder `out`. `run` computes the parts that are not finished."""

    def __init__(
        self,
        loaded: LoadedModel,
        inputs: Sequence[str],
        out: Path,
        settings: BulkSettings,
        execution: Execution,
        *,
        console: Console | None = None,
        quiet: bool = False,
    ) -> None:
        if loaded.preprocess is None:
            raise UsageError(
                f"{loaded.uri or 'this model'} has no preprocessing, so it cannot read images; pass a Preprocess."
            )
        self.loaded = loaded if settings.fit is None else with_fit(loaded, settings.fit)
        self.inputs, self.out, self.settings, self.execution = inputs, out, settings, execution
        self.console = console or make_console(stderr=True)
        self.quiet = quiet
        self.shard = parse_shard(execution.shard)
        self.events = EventLog(out / f"log-{self.shard[0]}-of-{self.shard[1]}.jsonl")

    def run(self) -> Outcome:
        """Compute the missing parts of the shard.

        Raises UsageError for invalid settings or inputs, KeyboardInterrupt after logging and removing temporary files.
        """
        start = time.monotonic()
        check_folder_name(self.out)
        check_folders([self.out])
        dataset = find_dataset(self.inputs, self.execution.part_size)
        check_labels_exist(self.settings, dataset)
        own_files = run_files(self.out)
        check_run_files(own_files)
        check_own(self.events.path, is_own_log)
        check_overwrite(own_files, [*self.inputs, *inputs_named_like_run_files(dataset)])
        created = make_folder(self.out)
        try:
            return self.run_in_folder(dataset, start)
        finally:
            if created and not (self.out / JOB).exists():  # nothing was computed, so nothing can be resumed
                remove_lock(self.out, self.shard)
            remove_empty(created)

    def run_in_folder(self, dataset: Dataset, start: float) -> Outcome:
        """Run the job in its folder, which exists."""
        plan = resume_plan(make_plan(self.loaded, dataset, self.settings, self.execution.part_size), self.out)
        with storage_errors(self.out), locked(self.out, self.shard):
            plan = resume_plan(plan, self.out)  # another shard may have stored it in the meantime
            remove_temporary_files(self.out, plan, parts_of_shard(plan.parts, self.shard))
            parts = self.find_parts(plan, dataset)
            job = self.prepare(dataset, plan, parts)
            self.events(
                "started", fingerprint=plan.fingerprint, engine=self.execution.engine, shard=self.execution.shard,
                parts=len(parts.all), finished_parts=len(parts.kept), images=plan.images, batch_size=job.plan.batch_size,
            )  # fmt: skip
            if parts.kept:
                self.print(f"{len(parts.kept)} of {len(parts.all)} parts are already finished")
            is_counted = isinstance(dataset, ListDataset)
            total = sum(len(list(dataset.part(part))) for part in parts.all) if is_counted else None
            progress = ProgressReporter(self.console, total, parts.images, self.quiet)
            return self.compute(job, parts, progress, start)

    def find_parts(self, plan: Plan, dataset: Dataset) -> ShardParts:
        """Return the parts of the shard. Damaged parts, and with `retry_failed` those with failed images, are repeated."""
        mine = parts_of_shard(plan.parts, self.shard)
        kept: dict[int, PartCounts] = {}
        damaged: set[int] = set()
        finished = finished_parts(self.out, plan)
        existing = [part for part in mine if (self.out / plan.part_name(part)).exists()]
        if len(existing) > MANY_PARTS:
            self.print(f"checking {len(existing):,} finished parts")
        for part in existing:
            if part in finished and self.execution.retry_failed and finished[part].failed:
                continue
            try:
                kept[part] = verify_part(self.out / plan.part_name(part), plan, part, dataset)
            except PartError as error:
                if not error.is_damaged:
                    raise
                damaged.add(part)
                self.note(f"{plan.part_name(part)}: {error.reason}. Computing this part again")
        todo = [part for part in mine if part not in kept]
        return ShardParts(mine, kept, todo, set(todo) - (set(finished) - damaged), damaged)

    def finished_now(self, job: Job, parts: ShardParts, unwritten: set[int]) -> dict[int, PartCounts]:
        """Return the finished parts. The file of a damaged part counts only if it was replaced."""
        finished = finished_parts(self.out, job.plan)
        for part in parts.damaged & unwritten & set(finished):
            try:
                verify_part(self.out / job.plan.part_name(part), job.plan, part, job.source)
            except PartError:
                del finished[part]
        return finished

    def prepare(self, dataset: Dataset, plan: Plan, parts: ShardParts) -> Job:
        """Return the calibrated job, and log the notes of this start."""
        resolver = make_label_resolver(self.loaded, dataset)
        resources = Resources(self.execution.workers, self.execution.memory)
        job = Job(as_prepared(self.loaded, self.settings.fast), dataset, plan, self.out, resources, resolver)
        if not parts.todo:
            return job
        for note in (*dataset.notes, *resolver.notes):
            self.note(note)
        if changed := changed_versions(plan, self.out):
            self.note(f"started with other versions: {changed}. Maps may differ in their last digits")
        return dataclasses.replace(job, plan=calibrate(job, self.execution.batch_size, parts.todo, self.note))

    def compute(self, job: Job, parts: ShardParts, progress: ProgressReporter, start: float) -> Outcome:
        """Compute the parts with the engine. The end of the job is logged in every case."""
        unwritten = set(parts.unwritten)

        def report(result: PartResult) -> None:
            self.events("part", **dataclasses.asdict(result))
            progress.add(result)
            unwritten.discard(result.part)

        end = "failed"
        try:
            engine = make_engine(self.execution.engine, self.execution.actors)
            with progress.running():
                for result in engine(job, parts.todo, self.note, progress.advance):
                    report(result)
            end = "done"
        except KeyboardInterrupt:
            end = "interrupted"
            raise
        finally:
            if end != "done":  # of Ray actors that ended with their cluster
                remove_temporary_files(self.out, job.plan, parts.all)
            finished = self.finished_now(job, parts, unwritten)
            for part in sorted(unwritten & set(finished)):  # interrupted between writing the file and reporting it
                report(PartResult(part, finished[part].images, finished[part].failed, seconds=None))
            outcome = Outcome(
                progress.images, parts.images, parts.failed + progress.failed, job.plan.parts,
                job.plan.parts - len(finished), round(time.monotonic() - start, 3),
            )  # fmt: skip
            self.log_end(end, outcome)
        return outcome

    def log_end(self, end: str, outcome: Outcome) -> None:
        self.events(
            "ended", how=end, images=outcome.images, failed=outcome.failed, parts_left=outcome.parts_left,
            seconds=outcome.seconds,
        )  # fmt: skip
        if end == "interrupted":
            finished = outcome.parts - outcome.parts_left
            self.print(f"{finished} of {outcome.parts} parts are finished.")

    def note(self, message: str) -> None:
        self.events("note", text=message)
        self.print(f"note: {message}")

    def print(self, message: str) -> None:
        if not self.quiet:
            self.console.print(printable(message), style=DIM, soft_wrap=True, markup=False)


def run_job(
    loaded: LoadedModel,
    inputs: Sequence[str],
    out: Path,
    settings: BulkSettings,
    execution: Execution,
    *,
    quiet: bool = False,
) -> Outcome:
    """Run a bulk job on `inputs` in the folder `out`, or resume it."""
    return BulkJob(loaded, inputs, out, settings, execution, quiet=quiet).run()


def inputs_named_like_run_files(dataset: Dataset) -> Iterator[str]:
    """Yield the images and masks with a name that a run's own files may have: of a million images, only these are compared."""
    items = dataset.items if isinstance(dataset, ListDataset) else ()
    paths = (path for item in items for path in (item.path, item.mask))
    return (path for path in paths if path and path.endswith(RUN_FILE_ENDINGS))


def check_labels_exist(settings: BulkSettings, dataset: Dataset) -> None:
    """Raise UsageError if the label of each image is a target and no image has one."""
    is_target = any(target.strip().lower() == LABEL for target in settings.targets)
    if is_target and isinstance(dataset, ListDataset) and not dataset.labels:
        raise OptionError(
            "targets",
            LABEL,
            f"none of the {dataset.count:,} images has a label. Put the images of each class into a folder, or pass a table "
            "with a label column.",
        )


def check_run_files(files: Sequence[Path]) -> None:
    """Raise UsageError if a file of the run is a pipe or a folder: opening it would block or fail."""
    for path in files:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a regular file, and a run writes one there. Choose another folder.")


def make_folder(out: Path) -> list[Path]:
    """Create the folder of the run, and return the folders that did not exist."""
    with write_errors(out):
        return make_folders(out)


@contextmanager
def storage_errors(out: Path) -> Iterator[None]:
    """Convert the error of a disk or network that is full or unavailable to a UsageError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UsageError(
                f"{out}: the disk is full. Finished parts are kept; free space and run the same command again."
            ) from None
        raise UsageError(f"{out}: {os_error_reason(error)}. Finished parts are kept.") from None


def make_label_resolver(loaded: LoadedModel, dataset: Dataset) -> LabelResolver:
    has_folder_labels = isinstance(dataset, ListDataset) and dataset.has_folder_labels
    return LabelResolver(
        dataset.labels, has_folder_labels=has_folder_labels, names=loaded.labels, count=count_classes(loaded.module)
    )
