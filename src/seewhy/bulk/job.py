"""A whole job: begun or gone on with, done by an engine, told, and ended in order."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.calibration import calibrate
from seewhy.bulk.dataset import Dataset, ListDataset
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.engines import ENGINES, engine_of
from seewhy.bulk.job_log import Log, ProgressReporter, span
from seewhy.bulk.label_resolver import LabelResolver
from seewhy.bulk.part_files import Shard, finished, locked, share_of, sweep
from seewhy.bulk.plan import PREDICTED, BulkSettings, begin, changed_versions, make_plan
from seewhy.bulk.worker import Job, PartResult, Resources
from seewhy.engine.inputs import with_fit
from seewhy.errors import UnknownName, UsageError
from seewhy.models.inspection import count_classes
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model

PART = 256  # pictures
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a start of a job did: `pictures` explained now, `before` in parts that were there, `failed` of both."""

    pictures: int
    before: int
    failed: int
    parts: int  # of the whole job
    left: int  # parts not yet done, of all shards
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def sentence(self, out: Path) -> str:
        """What happened, for people."""
        rate = f", {self.pictures / self.seconds:,.1f} a second" if self.pictures else ""
        text = f"{self.pictures:,} pictures in {span(self.seconds)}{rate}"
        text += f"; {self.before:,} were there" if self.before else ""
        text += f"; {self.failed:,} failed, each a row with its reason" if self.failed else ""
        after = (
            f"{self.left} of {self.parts} parts are left to other shards"
            if self.left
            else f"See the whole: seewhy summary {out}"
        )
        return f"{text}\nRows in {out}/part-*.parquet. {after}"


def explain_all(
    model: Any,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    methods: str | Sequence[str] = (),
    layers: str | Sequence[str] = "suggested",
    targets: str | Sequence[str] = PREDICTED,
    preprocess: Any = None,
    labels: Any = None,
    store: str = "uint8",
    batch: int | None = None,
    part_size: int = PART,
    workers: int | None = None,
    shard: Shard = (0, 1),
    engine: Literal["local", "ray"] = "local",
    quiet: bool = False,
    **more: Any,
) -> BulkRun:
    """Explain every picture of a data set into Parquet files in `out`, and read them: what `seewhy bulk` does.

    `model` is what `load_model` takes, `inputs` a folder, a list, a table, tar files or several of these (see docs/bulk.md).
    `methods`, `layers` and `targets` are texts as on the command line; `more` are `versus`, `read_at`, `grid`, `multilabel`,
    `fit` and `seed` of `explain`. The same call goes on where it was interrupted. Raises UsageError and its kinds for what cannot be
    done as given; a picture that fails is a row with its reason.

    >>> import tempfile
    >>> from seewhy.images.samples import sample
    >>> run = explain_all(None, sample("coffee"), tempfile.mkdtemp(), workers=0, quiet=True)
    >>> run.table["target_name"].to_pylist()
    ['espresso']
    """
    if unknown := set(more) - {field.name for field in dataclasses.fields(BulkSettings)}:
        raise UnknownName("argument", min(unknown), [field.name for field in dataclasses.fields(BulkSettings)])

    def several(given: str | os.PathLike[str] | Sequence[Any]) -> tuple[str, ...]:
        return (os.fspath(given),) if isinstance(given, str | os.PathLike) else tuple(map(os.fspath, given))

    asked: dict[str, Any] = {name: several(value) if name == "versus" else value for name, value in more.items()}
    questions = BulkSettings(several(methods), several(layers), several(targets), store=store, **asked)
    loaded = load_model(model, preprocess=preprocess, labels=labels)
    means = Resources(workers)
    run_job(
        loaded, several(inputs), Path(out), questions, means=means, batch=batch, part_size=part_size, shard=shard,
        engine=engine, quiet=quiet,
    )  # fmt: skip
    return BulkRun.read(out)


def run_job(
    loaded: LoadedModel,
    inputs: Sequence[str],
    out: Path,
    questions: BulkSettings,
    *,
    means: Resources,
    batch: int | None = None,
    part_size: int = PART,
    shard: Shard = (0, 1),
    engine: Literal["local", "ray"] = "local",
    actors: int | None = None,
    retry: bool = False,
    console: Console | None = None,
    quiet: bool = False,
) -> Outcome:
    """Explain every picture of `inputs` that the run in `out` does not hold yet; `retry`: also the parts where some failed.

    Raises UsageError and its kinds for what cannot be done as given, KeyboardInterrupt after everything is put in order.
    """
    console = console or Console(stderr=True, highlight=False, emoji=False)
    check(engine, batch, part_size, means)
    if loaded.preprocess is None:
        raise UsageError(f"{loaded.uri or 'this model'} brings no preprocessing, so it takes no pictures: give one.")
    if questions.fit is not None:
        loaded = with_fit(loaded, questions.fit)  # type: ignore[arg-type]

    def hear(message: str) -> None:
        log("note", text=message)
        if not quiet:
            console.print(f"note: {message}", style="bright_black", soft_wrap=True, markup=False)

    start = time.monotonic()
    items = find_dataset(inputs, part_size)
    plan = begin(make_plan(loaded, items, questions, part_size), make_folder(out))
    with locked(out, shard):
        plan = begin(plan, out)  # another shard may have begun meanwhile
        log = Log(out / f"log-{shard[0]}-of-{shard[1]}.jsonl")
        classes = class_of(loaded, items)
        mine = share_of(plan.parts, shard)
        sweep(out, plan, mine)
        found = finished(out, plan)
        there = {part: known for part, known in found.items() if not (retry and known["failed"])}
        todo = [part for part in mine if part not in there]
        own = [there[part] for part in mine if part in there]
        before, failed = sum(one["pictures"] for one in own), sum(one["failed"] for one in own)
        for note in (*items.notes, *classes.notes) if todo else ():
            hear(note)
        if todo and (changed := changed_versions(plan, out)):
            hear(f"begun with {changed}: maps may differ in their last digits")
        job = Job(loaded, items, plan, out, means, classes)
        if todo:
            plan = calibrate(job, batch, todo, hear)
            job = dataclasses.replace(job, plan=plan)
        log("started", fingerprint=plan.fingerprint, engine=engine, shard=f"{shard[0]}/{shard[1]}", parts=len(mine),
            there=len(own), pictures=plan.pictures, batch=plan.batch)  # fmt: skip
        if own and not quiet:
            console.print(f"{len(own)} of {len(mine)} parts are there already", style="bright_black")
        total = sum(len(list(items.part(part))) for part in mine) if isinstance(items, ListDataset) else None
        tell = ProgressReporter(console, total, before, quiet)
        missed = set(todo) - set(found)

        def news(done: PartResult) -> None:
            log("part", **dataclasses.asdict(done))
            tell(done)
            missed.discard(done.part)

        ended = "failed"
        try:
            with tell.running():
                for done in engine_of(engine, actors)(job, todo, hear, tell.moved):
                    news(done)
            ended = "done"
        except KeyboardInterrupt:
            ended = "interrupted"
            raise
        except OSError as error:
            if error.errno not in FULL:
                raise UsageError(f"{out}: {(error.strerror or str(error)).lower()}; what is done stays done.") from None
            raise UsageError(f"{out}: the disk is full. What is done stays done; make room, and start again.") from None
        finally:
            now = finished(out, plan)
            for part in sorted(missed & set(now)):  # an interruption fell between its file and the news of it
                news(PartResult(part, now[part]["pictures"], now[part]["failed"], seconds=None))
            left, seconds = plan.parts - len(now), round(time.monotonic() - start, 3)
            log("ended", how=ended, pictures=tell.pictures, failed=failed + tell.failed, left=left, seconds=seconds)
            if ended == "interrupted" and not quiet:
                text = f"{plan.parts - left} of {plan.parts} parts are done; the same command goes on."
                console.print(text, style="bright_black")
    return Outcome(tell.pictures, before, failed + tell.failed, plan.parts, left, seconds)


def check(engine: str, batch: int | None, part_size: int, means: Resources) -> None:
    if engine not in ENGINES:
        raise UnknownName("engine", engine, ENGINES)
    for name, value, least in (("batch-size", batch, 1), ("part-size", part_size, 1), ("workers", means.workers, 0)):
        if value is not None and value < least:
            raise UsageError(f"--{name} {value}: give at least {least}.")


def make_folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {(error.strerror or str(error)).lower()}.") from None
    return out


def class_of(loaded: LoadedModel, items: Dataset) -> LabelResolver:
    has_folder_labels = isinstance(items, ListDataset) and items.has_folder_labels
    return LabelResolver(items.labels, has_folder_labels=has_folder_labels, names=loaded.labels, count=count_classes(loaded.module))
