"""Where a job runs: here, or on Ray. An engine hands out parts and says which are done; parts, rows and files are the same."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from seewhy.bulk.batches import Hear
from seewhy.bulk.dataset import SinglePart
from seewhy.bulk.worker import Job, PartResult, Worker
from seewhy.errors import SeewhyError, UsageError, shorten_error

ENGINES = ("local", "ray")
SPARE = 2  # CPUs for Ray's own tasks: without one they wait for actors that hold all of them, for ever

# It reports nothing to its makers, and tells of its own steps and of what it would advise only where something is wrong.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}


class Engine(Protocol):
    """Does parts of a job, in any order, and yields each when its file is there.

    `hear` is told what one should know, `tick`, where that can be, how many pictures more are explained.
    """

    def __call__(
        self, job: Job, parts: Sequence[int], hear: Hear, tick: Callable[[int], None]
    ) -> Iterator[PartResult]: ...


def local(job: Job, parts: Sequence[int], hear: Hear, tick: Callable[[int], None]) -> Iterator[PartResult]:
    """One after the other, in this process."""
    with Worker(with_readers(job, cores() // 2), hear, tick) as worker:
        yield from worker.run(parts)


class OnRay:
    """Ray Data hands the parts to actors that hold the model; one that dies is replaced, and its part done again.

    `actors` is how many there are: without it one for each GPU of the cluster, or, where there are none, for each CPU. The
    pictures and the run's folder must lie under the same path on every machine. Ray's own checkpoints are not used: what is
    done is what has its name in the folder, so a job may go on here or there.
    """

    def __init__(self, actors: int | None = None) -> None:
        self.actors = actors

    def __call__(self, job: Job, parts: Sequence[int], hear: Hear, tick: Callable[[int], None]) -> Iterator[PartResult]:
        with cluster() as ray:
            resources = ray.cluster_resources()
            gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)) - SPARE)
            actors = max(1, min(self.actors or gpus or cpus, len(parts)))
            threads = max(1, cpus // actors)
            share = f"one of {gpus} GPUs" if gpus else f"{threads} torch thread{'s' if threads > 1 else ''}"
            hear(f"Ray: {actors} actor{'s' if actors > 1 else ''}, each with {share}")
            # Of a list that may be long each actor gets no more than the parts that it does.
            own = replace(job, out=job.out.absolute(), items=SinglePart(()))
            own = with_readers(own, cpus // actors - 1 if gpus else 1)
            kept = [ray.put(own)]  # in a list Ray hands it on unopened
            data = ray.data.from_items([{"part": part, "items": pickle.dumps(job.items.single_part(part))} for part in parts])
            # A block is what is handed out and tried again, so it holds one part.
            data = data.repartition(target_num_rows_per_block=1)
            done = data.map_batches(
                Actor,
                fn_constructor_args=(kept, bool(gpus), threads),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
                num_gpus=1 if gpus else 0,
                num_cpus=1,
            )
            told: set[str] = set()
            try:
                for row in done.iter_rows():
                    for note in row["notes"]:
                        if note not in told:  # every actor finds out the same
                            told.add(note)
                            hear(note)
                    problems = tuple(zip(row["names"], row["reasons"], strict=True))
                    yield PartResult(row["part"], row["pictures"], row["failed"], row["seconds"], problems)
            except ray.exceptions.RayError as error:
                raise cause_of(error) from None


def cause_of(error: BaseException) -> BaseException:
    """What went wrong in an actor: ours and the system's errors as they are, others in one line."""
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, SeewhyError | OSError):
            return known
        known = getattr(known, "cause", None) or known.__cause__
    return UsageError(f"Ray: {shorten_error(error)}; what is done stays done.")


class Actor:
    """A model in a process of Ray's, and maybe on another machine, which writes the parts that it is told to."""

    def __init__(self, job: Any, gpu: bool, threads: int) -> None:
        import ray
        import torch

        own: Job = ray.get(job[0])
        if gpu:
            own.loaded.module.to("cuda")
        else:
            torch.set_num_threads(threads)
        self.notes: list[str] = []
        self.worker = Worker(own, hear=self.notes.append)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        [part], [items] = batch["part"], batch["items"]
        self.worker.job = replace(self.worker.job, items=pickle.loads(items))
        self.notes.clear()
        [done] = self.worker.run([int(part)])
        return {
            "part": [done.part],
            "pictures": [done.pictures],
            "failed": [done.failed],
            "seconds": [done.seconds],
            "names": [[name for name, _ in done.problems]],
            "reasons": [[reason for _, reason in done.problems]],
            "notes": [list(self.notes)],
        }


@contextmanager
def cluster() -> Iterator[Any]:
    """Ray, started here where no cluster is meant (RAY_ADDRESS), and stopped again if so."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UsageError(f"--engine ray needs {error.name}: pip install 'seewhy[bulk,ray]'") from None
    own = not ray.is_initialized()
    if own:
        here: dict[str, Any] = {"num_cpus": cores() + SPARE, "include_dashboard": False}
        given = {} if os.environ.get("RAY_ADDRESS") else here
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **given)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def with_readers(job: Job, count: int) -> Job:
    """The job with so many processes that read pictures, at least 1 and at most 16, where it says nothing of them."""
    if job.means.workers is not None:
        return job
    return replace(job, means=replace(job.means, workers=max(1, min(16, count))))


def cores() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engine_of(name: str, actors: int | None) -> Engine:
    return OnRay(actors) if name == "ray" else local
