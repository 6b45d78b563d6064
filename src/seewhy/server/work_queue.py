"""Models that answer one question after the other, each in a thread of its own, with room for so many and no more."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from seewhy.errors import ImageError, SeewhyError
from seewhy.models.loaded import LoadedModel

PAUSE = 0.1  # seconds between two reports of progress
Progress = Callable[[int, int], None]
Answer = Callable[[LoadedModel, Progress], str]


class Stopped(Exception):
    """Nobody waits for this answer any more."""


class Full(Exception):
    """All places are taken."""


class Job:
    """One question on its way: `events` as dicts, in the loop that asked; the last has "page" or "error"."""

    def __init__(self, answer: Answer) -> None:
        self.answer: Answer | None = answer  # holds the picture
        self.working: Future[None] | None = None
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.stopped = threading.Event()
        self.said = 0.0

    def leave(self) -> None:
        """Nobody waits any more: what has not begun never will, what runs ends at its next step."""
        self.stopped.set()
        if self.working is not None and self.working.cancel():
            self.answer = None  # the worker's list keeps the job until its turn

    def tell(self, **event: Any) -> None:
        """Safe from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server has ended
            self.stopped.set()

    def tick(self, done: int, total: int) -> None:
        """Called from inside `explain` as it goes on; ends it where nobody waits."""
        if self.stopped.is_set():
            raise Stopped
        if total and time.monotonic() - self.said > PAUSE:
            self.said = time.monotonic()
            self.tell(done=min(done, total), total=total)


class WorkQueue:
    """The `models`, a worker for each, and `places` for questions that wait or are being answered."""

    def __init__(self, models: Sequence[LoadedModel], places: int) -> None:
        self.models = list(models)
        self.workers = [ThreadPoolExecutor(1, f"model-{number}") for number, _ in enumerate(models)]
        self.free = places  # changed in the loop's thread only
        self.open: list[set[Job]] = [set() for _ in models]

    def take_place(self) -> None:
        """Raises Full where there is none. Who takes one gives it back, or asks."""
        if self.free < 1:
            raise Full
        self.free -= 1

    def give_place(self) -> None:
        self.free += 1

    def ask(self, number: int, answer: Answer) -> Job:
        """Start `answer` as soon as that model is free. Its place is given back when it ends."""
        job, others = Job(answer), self.open[number]
        if others:
            job.tell(waiting=len(others))
        others.add(job)

        def ended(_: asyncio.Future[None]) -> None:
            others.discard(job)
            self.give_place()

        job.working = self.workers[number].submit(self.work, job, self.models[number])
        asyncio.wrap_future(job.working).add_done_callback(ended)  # in the loop's thread
        return job

    @staticmethod
    def work(job: Job, model: LoadedModel) -> None:
        """In the worker's thread. Whatever goes wrong is this question's end, not the server's."""
        try:
            job.tick(0, 0)
            assert job.answer is not None
            job.tell(begun=True)
            job.tell(page=job.answer(model, job.tick))
        except Stopped:
            job.tell(error="stopped")
        except SeewhyError as error:
            job.tell(error=str(error), picture=isinstance(error, ImageError))
        except BaseException:  # a model's own code may even ask to exit
            traceback.print_exc()
            job.tell(error="an error inside the server; its terminal shows which")

    def close(self) -> None:
        """Tell all who wait that this is the end, stop what runs at its next step, and take nothing more."""
        for number, worker in enumerate(self.workers):
            for job in list(self.open[number]):
                job.tell(error="the server ends")
                job.leave()
            worker.shutdown(wait=False, cancel_futures=True)
