"""What a job finds out at its first start, from the first pictures, and keeps: the layer, the method, the size of a batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from seewhy.bulk.batches import BatchExplainer, Hear, askable, is_memory
from seewhy.bulk.decoding import read
from seewhy.bulk.plan import Plan, write_job
from seewhy.bulk.rows import BatchItem, as_target_list
from seewhy.bulk.worker import Job
from seewhy.engine.layer_choice import SUGGESTED
from seewhy.engine.suggestion import suggest
from seewhy.errors import INPUT_ERRORS, SeewhyError
from seewhy.tracing.grid import parse_grid

READ, ASKED = 1000, 8  # pictures at most, to find one that can be read, and one that can be explained

MANY = 10**9  # of tar files, whose pictures are not counted


def calibrate(job: Job, batch: int | None, todo: Sequence[int], hear: Hear) -> Plan:
    """The plan with everything that its rows depend on: as written down, or found out now and written down.

    "suggested" is one layer for the whole job, whatever picture another process sees first. Raises what no picture could
    be asked without.
    """
    plan = job.plan
    if plan.batch:
        if batch is not None and plan.batch != batch:
            hear(f"batches of {batch}, and of {plan.batch} in what is done: maps may differ in their last digits")
            return replace(plan, batch=batch)
        return plan
    plan, one = first_answer(job, todo)
    if one is None:  # nothing can be read; what is found out later may still be written down
        write_job(plan, job.out)
        return replace(plan, batch=batch or 1)
    if batch is None:
        most = max(1, (plan.pictures or MANY) // 4)  # trying costs as much as doing
        batch = BatchExplainer(job.loaded, plan.concrete, size=1, memory=job.means.memory).find_size(one, most)
        hear(f"batches of {batch} pictures (--batch-size)")
    return write_job(replace(plan, batch=batch), job.out)


def first_answer(job: Job, todo: Sequence[int]) -> tuple[Plan, BatchItem | None]:
    """The plan with layer and method as the first picture shows them that can be explained, and that picture."""
    plan, first = job.plan, None
    for one in itertools.islice(readable_ones(job, todo), ASKED):
        batches = BatchExplainer(job.loaded, plan.questions, size=1, memory=job.means.memory)
        inputs = batches.inputs([one])
        try:
            e = batches.ask(inputs, as_target_list(plan.questions, [one.label_class]))
        except (SeewhyError, *INPUT_ERRORS, MemoryError) as error:
            if is_memory(error):
                raise
            first = first or error
            continue
        asked = plan.questions
        own = asked.layers
        if SUGGESTED in own:
            found = suggest(job.loaded.module, inputs, None if asked.grid is None else parse_grid(asked.grid))
            own = tuple(found.layer if layer == SUGGESTED else layer for layer in own)
        return replace(plan, layers=own, methods=asked.methods or e.methods), one
    if first is not None:
        raise first
    return plan, None


def readable_ones(job: Job, todo: Sequence[int]) -> Iterator[BatchItem]:
    asked = job.plan.questions
    for item in itertools.islice((item for part in todo for item in job.items.part(part)), READ):
        one = BatchItem(0, read(item, job.loaded.preprocess, asked.max_pixels), job.classes(item.label))
        if askable(one, asked).reason is None:
            yield one
