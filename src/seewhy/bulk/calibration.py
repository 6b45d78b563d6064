"""Determine the layer, the method and the batch size of a job from its first images, once for all starts and shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from seewhy.bulk.batch_explainer import BatchExplainer, Log, check_label
from seewhy.bulk.decoding import decode_image
from seewhy.bulk.named_targets import parse_targets, targets_for_batch
from seewhy.bulk.plan import Plan, store_plan
from seewhy.bulk.rows import BatchItem
from seewhy.bulk.settings import SUGGESTED
from seewhy.bulk.worker import Job
from seewhy.engine.suggestion import suggest
from seewhy.errors import INPUT_ERRORS, SeewhyError
from seewhy.tracing.grid import parse_grid
from seewhy.tracing.model_errors import is_caused_by_memory

MAX_DECODED, MAX_EXPLAINED = 1000, 8  # images to try until one can be decoded, and explained
UNKNOWN_COUNT = 10**9  # images in tar files are not counted


def calibrate(job: Job, batch_size: int | None, parts: Sequence[int], log: Log) -> Plan:
    """Return the plan with layers, methods and batch size: those of the first start, or determined and stored now.

    "suggested" becomes one layer for the entire job, whichever image another process reads first. Raises the error of the
    first image if no image can be explained.
    """
    plan = job.plan
    if plan.is_calibrated:
        if batch_size is not None and plan.batch_size != batch_size:
            log(
                f"batches of {batch_size} images; finished parts used {plan.batch_size}: maps may differ in their last digits"
            )
            return replace(plan, batch_size=batch_size)
        return plan
    plan, item = explain_first_image(job, parts)
    if item is None:  # no image can be decoded: store the settings only, so a later start can calibrate
        store_plan(plan, job.out)
        return replace(plan, batch_size=batch_size or 1)
    if batch_size is None:
        limit = max(1, (plan.images or UNKNOWN_COUNT) // 4)  # tuning costs as much as explaining
        # The check runs one image at a time, so it does not count.
        settings = replace(plan.resolved_settings, check=False)
        explainer = BatchExplainer(job.loaded, settings, batch_size=1, memory=job.resources.memory)
        batch_size = explainer.tune_batch_size(item, limit)
        log(f"batch size {batch_size} (tuned; set it with --batch-size)")
    return store_plan(replace(plan, batch_size=batch_size), job.out)


def explain_first_image(job: Job, parts: Sequence[int]) -> tuple[Plan, BatchItem | None]:
    """Return the plan with the layers and methods of the first image that can be explained, and that image."""
    plan, first_error = job.plan, None
    settings = plan.settings
    for item in itertools.islice(decodable_items(job, parts), MAX_EXPLAINED):
        explainer = BatchExplainer(job.loaded, settings, batch_size=1, memory=job.resources.memory)
        inputs = explainer.inputs([item])
        try:
            e = explainer.explain(inputs, targets_for_batch(parse_targets(settings.targets), [item.label_class]))
        except (SeewhyError, *INPUT_ERRORS, MemoryError) as error:
            if is_caused_by_memory(error):
                raise
            first_error = first_error or error
            continue
        layers = settings.layers
        if SUGGESTED in layers:
            grid = None if settings.grid is None else parse_grid(settings.grid)
            suggestion = suggest(job.loaded.module, inputs, grid)
            layers = tuple(suggestion.layer if layer == SUGGESTED else layer for layer in layers)
        return replace(plan, layers=layers, methods=settings.methods or e.methods), item
    if first_error is not None:
        raise first_error
    return plan, None


def decodable_items(job: Job, parts: Sequence[int]) -> Iterator[BatchItem]:
    """Yield the first images that can be decoded and have the label that the targets need."""
    settings = job.plan.settings
    items = (item for part in parts for item in job.source.part(part))
    for item in itertools.islice(items, MAX_DECODED):
        image = decode_image(item, job.loaded.preprocess, settings.max_pixels)
        decoded = BatchItem(0, image, job.resolve_label(item.label))
        if check_label(decoded, settings).failure is None:
            yield decoded
