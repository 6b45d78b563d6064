"""A group of cases of one kind: each runs in a separate process and folder, and its end and its files are checked."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reliability.processes import Observed
from reliability.sandbox import remove

WORKERS = 2


@dataclass(frozen=True)
class Result:
    """One case: a description that identifies it, how it ended, and what is wrong ("" if it ended as expected)."""

    case: str
    end: str  # the exit code, or how the process was stopped
    message: str
    problems: list[str]
    seconds: float
    megabytes: float

    @classmethod
    def of(cls, case: str, observed: Observed, problems: list[str]) -> Result:
        end = "hang" if observed.is_late else f"signal {observed.signal}" if observed.signal else str(observed.code)
        return cls(case, end, observed.message, problems, observed.seconds, observed.megabytes)


@dataclass
class Group:
    """All results of one kind of cases."""

    title: str
    expected: str
    results: list[Result] = field(default_factory=list)

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.problems]

    def ends(self) -> str:
        """Return how often each exit code occurred, as text."""
        counts = Counter(result.end for result in self.results)
        return ", ".join(f"{count:,} x {end}" for end, count in sorted(counts.items()))


RunCase = Callable[[int, Path], Result]


def run_cases(run: RunCase, seeds: Iterable[int], log: Path) -> None:
    """Run a case for each seed, in a folder that is deleted afterwards, and append the results to `log`."""
    with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
        for seed in seeds:
            folder = Path(tempfile.mkdtemp(prefix="case-"))
            try:
                result = run(seed, folder)
            finally:
                remove(folder)
            file.write(json.dumps(result.__dict__) + "\n")
            file.flush()


def run_group(
    title: str, expected: str, run: RunCase, count: int, *, start: int = 0, seconds: float | None = None
) -> Group:
    """Run the cases `start` to `start + count` in two processes; with `seconds`, as many as fit into this time."""
    folder = Path(tempfile.mkdtemp(prefix="group-"))
    context = multiprocessing.get_context("fork")
    deadline = None if seconds is None else time.monotonic() + seconds
    logs = [folder / str(worker) for worker in range(WORKERS)]
    workers = [
        context.Process(target=run_cases, args=(run, until(range(start + w, start + count, WORKERS), deadline), log))
        for w, log in enumerate(logs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"{title}: the process that runs the cases ended with {worker.exitcode}")
    lines = [line for log in logs for line in log.read_text("utf-8").splitlines()]
    remove(folder)
    return Group(title, expected, [Result(**json.loads(line)) for line in lines])


def until(seeds: Iterable[int], deadline: float | None) -> Iterator[int]:
    for seed in seeds:
        if deadline is not None and time.monotonic() > deadline:
            return
        yield seed


def warm_up() -> None:
    """Import everything that commands import, and load the embedded model once for all cases of this process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import seewhy.bulk.api
    import seewhy.bulk.export
    import seewhy.cli.image_job
    import seewhy.cli.main
    import seewhy.server
    import seewhy.summary.comparison_page
    import seewhy.summary.run_summary
    import seewhy.summary.summary_page
    from seewhy.models import loading

    load = loading.load_model
    embedded = load(None)

    def load_once(model: object = None, **settings: object) -> object:
        if model in (None, "embedded") and settings.get("labels") is None:
            return embedded
        return load(model, **settings)  # type: ignore[arg-type]

    loading.load_model = load_once  # type: ignore[assignment]
    seewhy.server.serve = lambda *_, **__: None  # it runs until it is stopped
