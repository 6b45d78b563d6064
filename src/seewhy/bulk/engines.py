"""Engines: run the parts of a job in this process, or on Ray. Parts, rows and files are the same."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from seewhy.bulk.batch_explainer import Log
from seewhy.bulk.child_processes import make_ray_config, postponed_signals, safe_path
from seewhy.bulk.dataset import SinglePart
from seewhy.bulk.explaining_threads import explainer_count
from seewhy.bulk.settings import EngineName
from seewhy.bulk.worker import Job, PartResult, Worker
from seewhy.errors import SeewhyError, UsageError, shorten_error

MAX_READERS = 16
SPARE = 2  # CPUs for Ray's own tasks: if actors hold all CPUs, those tasks wait forever

# No usage statistics are sent, and Ray logs errors only.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}
# Under `uv run` Ray would upload the current directory and import modules from it.
NO_UPLOAD = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


class Engine(Protocol):
    """Computes parts of a job in any order, and yields each one when its file is finished.

    `log` receives notes about the run. `on_progress` receives the number of images after each batch; Ray does not call it.
    """

    def __call__(
        self, job: Job, parts: Sequence[int], log: Log, on_progress: Callable[[int], None]
    ) -> Iterator[PartResult]: ...


def run_locally(job: Job, parts: Sequence[int], log: Log, on_progress: Callable[[int], None]) -> Iterator[PartResult]:
    """Compute the parts one after the other in this process."""
    with Worker(with_readers(job, cpu_count() // 2), log, on_progress, explainer_count(job.loaded.module)) as worker:
        yield from worker.run(parts)


class RayEngine:
    """Distributes the parts to Ray actors that hold the model. Ray replaces an actor that dies and computes its part again.

    `actors` is their number. Default: one per GPU of the cluster, or one per CPU if there are no GPUs. The images and the run
    folder must have the same path on every machine. A part is finished if its file exists (Ray checkpoints are not used), so
    a job can resume on another engine.
    """

    def __init__(self, actors: int | None = None) -> None:
        self.actors = actors

    def __call__(
        self, job: Job, parts: Sequence[int], log: Log, on_progress: Callable[[int], None]
    ) -> Iterator[PartResult]:
        with cluster() as ray:
            resources = ray.cluster_resources()
            gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)) - SPARE)
            actors, threads = divide_cpus(cpus, self.actors or gpus or cpus, job.plan.parts, len(parts))
            hardware = f"one of {gpus} GPUs" if gpus else f"{threads} torch thread{'s' if threads > 1 else ''}"
            log(f"Ray: {actors} actor{'s' if actors > 1 else ''}, each with {hardware}")
            # The dataset may be a long list; an actor receives only the parts that it computes.
            actor_job = replace(job, out=job.out.absolute(), source=SinglePart(()))
            actor_job = with_readers(actor_job, cpus // actors - 1 if gpus else 1)
            reference = [ray.put(actor_job)]  # inside a list, Ray passes the reference and not the value
            data = ray.data.from_items(
                [{"part": part, "source": pickle.dumps(job.source.single_part(part))} for part in parts]
            )
            # A block is the unit of scheduling and retrying, so it holds one part.
            data = data.repartition(target_num_rows_per_block=1)
            done = data.map_batches(
                Actor,
                fn_constructor_args=(reference, bool(gpus), threads),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
                num_gpus=1 if gpus else 0,
                num_cpus=1,
            )
            logged: set[str] = set()
            try:
                for row in done.iter_rows():
                    for note in row["notes"]:
                        if note not in logged:  # every actor sends the same notes
                            logged.add(note)
                            log(note)
                    problems = tuple(zip(row["names"], row["reasons"], strict=True))
                    yield PartResult(row["part"], row["images"], row["failed"], row["seconds"], problems)
            except ray.exceptions.RayError as error:
                raise cause_of(error) from None


def divide_cpus(cpus: int, requested: int, parts: int, unfinished: int) -> tuple[int, int]:
    """Return the number of actors, and of torch threads for each, for a job of `parts` parts.

    The threads do not depend on how many parts are unfinished: their number changes the last digits of a map, and a resumed
    job must write the same files as an uninterrupted one.

    >>> divide_cpus(cpus=8, requested=4, parts=20, unfinished=20), divide_cpus(cpus=8, requested=4, parts=20, unfinished=1)
    ((4, 2), (1, 2))
    """
    actors = min(requested, parts)
    return max(1, min(actors, unfinished)), max(1, cpus // max(1, actors))


def cause_of(error: BaseException) -> BaseException:
    """Return the SeewhyError or OSError that an actor raised; any other error becomes a UsageError with one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SeewhyError | OSError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return UsageError(f"Ray: {shorten_error(error)}. Finished parts are kept.")


class Actor:
    """A model in a Ray process, possibly on another machine, that writes the parts it receives."""

    def __init__(self, job: Any, gpu: bool, threads: int) -> None:
        import ray
        import torch

        actor_job: Job = ray.get(job[0])
        if gpu:
            actor_job.loaded.module.to("cuda")
        else:
            torch.set_num_threads(threads)
        self.notes: list[str] = []
        self.worker = Worker(actor_job, log=self.notes.append)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        [part], [source] = batch["part"], batch["source"]
        self.worker.job = replace(self.worker.job, source=pickle.loads(source))
        self.notes.clear()
        [result] = self.worker.run([int(part)])
        return {
            "part": [result.part],
            "images": [result.images],
            "failed": [result.failed],
            "seconds": [result.seconds],
            "names": [[name for name, _ in result.problems]],
            "reasons": [[reason for _, reason in result.problems]],
            "notes": [list(self.notes)],
        }


@contextmanager
def cluster() -> Iterator[Any]:
    """Yield the `ray` module, connected to the cluster of RAY_ADDRESS, or to a local one that is stopped afterwards."""
    for name, value in (QUIET | NO_UPLOAD).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UsageError(f"the Ray engine needs {error.name}: pip install 'seewhy[bulk,ray]'") from None
    own = not ray.is_initialized()
    try:
        if own:
            local: dict[str, Any] = {"num_cpus": cpu_count() + SPARE, "include_dashboard": False}
            settings = {} if os.environ.get("RAY_ADDRESS") else local
            with safe_path(), postponed_signals():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, job_config=make_ray_config(), **settings)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        yield ray
    finally:
        if own:
            ray.shutdown()


def with_readers(job: Job, count: int) -> Job:
    """Return the job with `count` decoder processes (1 to 16), unless the user set their number."""
    if job.resources.workers is not None:
        return job
    return replace(job, resources=replace(job.resources, workers=max(1, min(MAX_READERS, count))))


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_engine(name: EngineName, actors: int | None) -> Engine:
    return RayEngine(actors) if name == "ray" else run_locally
