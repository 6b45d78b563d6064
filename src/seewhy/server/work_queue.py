"""A queue of jobs for several models: one worker thread per model, and a limited number of jobs in total."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from seewhy.errors import ImageError, SeewhyError
from seewhy.models.loaded_model import LoadedModel
from seewhy.server.printable_log import format_traceback

PROGRESS_INTERVAL = 0.1  # seconds between two progress events
Progress = Callable[[int, int], None]
Event = dict[str, object]  # JSON
LAST_EVENTS = frozenset({"page", "cover", "error"})  # keys of events that end a job
Work = Callable[[LoadedModel, Progress], Event]  # returns the last event


class JobCancelled(BaseException):
    """The client of this job has disconnected. Not an `Exception`, which code that runs models catches and reports."""


class QueueFull(Exception):
    """All slots of the queue are taken."""


class Job:
    """One request in the queue. Its `events` arrive in the event loop that created it; the last has a key of `LAST_EVENTS`."""

    def __init__(self, work: Work) -> None:
        self.work: Work | None = work  # holds the image
        self.future: Future[None] | None = None
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.cancelled = threading.Event()
        self.last_progress = 0.0

    def cancel(self) -> None:
        """Drop the job if it has not started; otherwise stop it at its next progress report."""
        self.cancelled.set()
        if self.future is not None and self.future.cancel():
            self.work = None  # the executor keeps the job until its turn, so release the image now

    def post(self, **event: object) -> None:
        """Append an event. Thread-safe."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server has stopped
            self.cancelled.set()

    def on_progress(self, done: int, total: int) -> None:
        """Post a progress event at most every 0.1 s. Raises JobCancelled after `cancel`."""
        if self.cancelled.is_set():
            raise JobCancelled
        if total and time.monotonic() - self.last_progress > PROGRESS_INTERVAL:
            self.last_progress = time.monotonic()
            self.post(done=min(done, total), total=total)


class WorkQueue:
    """The `models`, one worker thread for each, and `slots` for jobs that wait or run."""

    def __init__(self, models: Sequence[LoadedModel], slots: int) -> None:
        self.models = list(models)
        self.workers = [ThreadPoolExecutor(1, f"model-{number}") for number, _ in enumerate(models)]
        self.free_slots = slots  # modified only in the thread of the event loop
        self.open_jobs: list[set[Job]] = [set() for _ in models]

    def reserve_slot(self) -> None:
        """Reserve a slot, to be freed by `release_slot` or passed on to `submit`. Raises QueueFull if there is none."""
        if self.free_slots < 1:
            raise QueueFull
        self.free_slots -= 1

    def release_slot(self) -> None:
        self.free_slots += 1

    def submit(self, number: int, work: Work) -> Job:
        """Run `work` in the thread of a model as soon as it is free, and release the reserved slot afterwards."""
        job, others = Job(work), self.open_jobs[number]
        if others:
            job.post(waiting=len(others))
        others.add(job)

        def finish(_: asyncio.Future[None]) -> None:
            others.discard(job)
            self.release_slot()

        job.future = self.workers[number].submit(self.run_job, job, self.models[number])
        asyncio.wrap_future(job.future).add_done_callback(finish)  # runs in the thread of the event loop
        return job

    @staticmethod
    def run_job(job: Job, model: LoadedModel) -> None:
        """Run a job in its worker thread. An error ends this job, not the server."""
        try:
            job.on_progress(0, 0)
            assert job.work is not None
            job.post(started=True)
            job.post(**job.work(model, job.on_progress))
        except JobCancelled:
            job.post(error="stopped")
        except SeewhyError as error:
            job.post(error=str(error), image_error=isinstance(error, ImageError))
        except BaseException as error:  # model code may even raise SystemExit
            print(format_traceback(error), file=sys.stderr, end="")
            job.post(error="internal server error; see the server's terminal for the traceback")

    def close(self) -> None:
        """Post an error to all open jobs, stop running jobs at their next progress report, and accept no more."""
        for number, worker in enumerate(self.workers):
            for job in list(self.open_jobs[number]):
                job.post(error="the server is shutting down")
                job.cancel()
            worker.shutdown(wait=False, cancel_futures=True)
