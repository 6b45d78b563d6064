"""Explain images in batches.

The batch size is tuned at the start, halved on out-of-memory, and reduced to one to isolate an image that fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa
import torch
from torch import Tensor, nn

from seewhy.bulk.failures import RESUME, RepeatedFailures
from seewhy.bulk.map_checks import MapChecker, copy_checks
from seewhy.bulk.named_targets import parse_targets, targets_for_batch
from seewhy.bulk.rows import BatchItem, make_failed_rows, make_rows, row_schema, sort_rows
from seewhy.bulk.settings import LABEL, BulkSettings
from seewhy.engine.explain import explain
from seewhy.errors import INPUT_ERRORS, SeewhyError, TargetError, UsageError, shorten_error
from seewhy.explanation.result import Explanation
from seewhy.images.preprocess import Preprocess
from seewhy.images.resizing import ResizedCrop
from seewhy.models.loaded_model import LoadedModel
from seewhy.targets import Target
from seewhy.tracing.model_errors import is_caused_by_memory, is_device_error

FIRST_TRIAL, MAX_CPU, MAX_GPU = 4, 32, 512  # batch sizes
MIN_GAIN = 1.05  # a larger batch must be this much faster
LONG_TRIAL = 2.0  # seconds; larger batches gain nothing beyond that
Log = Callable[[str], None]


def ignore(message: str) -> None:
    """Drop a message: the default `log`."""


class BatchRows:
    """Rows collected in any order, each with the position of its image."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.positions: list[list[int]] = []

    def add(self, items: Sequence[BatchItem], batches: Sequence[pa.RecordBatch]) -> None:
        self.batches += batches
        self.positions += [[item.position for item in items] for _ in batches]

    def table(self) -> pa.Table:
        return sort_rows(self.batches, self.positions)


class BatchExplainer:
    """Explains batches of images with one model and the same settings.

    `batch_size` decreases on out-of-memory. `is_validated` is True once an image was explained with these settings: from then
    on an error concerns the image, not the settings. `log` receives notes about the run. `failures` counts failed images, also
    those of other explainers that share it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        settings: BulkSettings,
        *,
        batch_size: int,
        memory: float,
        is_validated: bool = False,
        log: Log = ignore,
        failures: RepeatedFailures | None = None,
    ) -> None:
        self.loaded, self.settings, self.memory, self.log = loaded, settings, memory, log
        self.batch_size, self.is_validated = batch_size, is_validated
        self.target_names = tuple(parse_targets(settings.targets))
        self.failures = failures or RepeatedFailures()
        self.device = device_of(loaded.module)
        self.checker = MapChecker(loaded, memory, log) if settings.check else None

    def rows(self, items: Sequence[BatchItem]) -> pa.Table:
        """Return the rows of the images in order: one per target and method, or one with the error if an image failed.

        Raises UsageError if the settings do not work for any of the first images.
        """
        rows = BatchRows()
        checked = [check_label(item, self.settings) for item in items]
        valid = [item for item in checked if item.failure is None]
        failed = [item for item in checked if item.failure is not None]
        errors = self.explain_with_retries(valid, rows)
        if errors and len(errors) == len(valid) and not self.is_validated:
            raise errors[0][1]
        failed += [replace(item, error=shorten_error(error)) for item, error in errors]
        if failed:
            rows.add(failed, [make_failed_rows(failed, self.loaded.labels, row_schema(self.settings.check))])
        return rows.table()

    def explain_with_retries(self, items: Sequence[BatchItem], rows: BatchRows) -> list[tuple[BatchItem, Exception]]:
        """Add the rows of `items`. Return the images that cannot be explained, with their errors."""
        errors: list[tuple[BatchItem, Exception]] = []
        queue = [list(items[start : start + self.batch_size]) for start in range(0, len(items), self.batch_size)]
        while queue:
            batch = queue.pop(0)
            try:
                rows.add(batch, self.explain_batch(batch))
                self.is_validated = True
                self.failures.reset()
            except (SeewhyError, *INPUT_ERRORS, MemoryError) as error:
                if is_device_error(error):
                    raise UsageError(f"the device failed ({shorten_error(error)}). {RESUME}") from None
                if len(batch) == 1:
                    errors.append((batch[0], self.failure_of_image(error)))
                elif is_caused_by_memory(error):
                    half = len(batch) // 2
                    queue[:0] = [batch[:half], batch[half:]]
                    self.limit_batch_size(half, len(batch))
                else:
                    queue[:0] = [[item] for item in batch]
        return errors

    def failure_of_image(self, error: Exception) -> Exception:
        """Return the error to record for one image. Raises UsageError if too many consecutive images fail alike."""
        failure = UsageError("not enough memory") if is_caused_by_memory(error) else error
        if not isinstance(error, TargetError):  # a class that does not occur in an image may be common
            self.failures.add(shorten_error(failure))
            if self.is_validated:
                self.failures.check()
        return failure

    def limit_batch_size(self, size: int, tried: int) -> None:
        if size < self.batch_size:
            self.batch_size = size
            self.log(f"not enough memory for a batch of {tried} images; using batches of {size} from now on")

    def explain_batch(self, items: Sequence[BatchItem]) -> list[pa.RecordBatch]:
        """Return the rows of images that are explained together."""
        targets = targets_for_batch(parse_targets(self.settings.targets), [item.label_class for item in items])
        inputs = self.inputs(items)
        e = self.explain(inputs, targets)
        if self.checker is not None:
            e = self.checker.checked(e)
        # `explain` merges targets that mean the same class for every image of the batch; here each target has its own rows.
        is_merged = len(e.target_results) != len(targets)
        batches: list[pa.RecordBatch] = []
        for index, (name, target) in enumerate(zip(self.target_names, targets, strict=True)):
            own = self.explain_again(inputs, target, e) if is_merged else e
            result = own.target_results[0 if is_merged else index]
            batches += make_rows(own, name, result, items, self.settings.store)
        return batches

    def explain_again(self, inputs: Tensor, target: Target, merged: Explanation) -> Explanation:
        """Return the explanation of one target alone, with its checks in the one of all targets."""
        own = self.explain(inputs, [target])
        return own if self.checker is None else copy_checks(own, merged) or self.checker.checked(own)

    def explain(self, inputs: Tensor, targets: Sequence[Target]) -> Explanation:
        settings = self.settings
        return explain(
            self.loaded,
            inputs,
            methods=list(settings.methods) or None,
            layers=list(settings.layers),
            read_at=settings.read_at,
            grid=settings.grid,
            targets=list(targets),
            versus=list(settings.versus) or None,
            multilabel=settings.multilabel,
            seed=settings.seed,
            memory=self.memory,
        )

    def inputs(self, items: Sequence[BatchItem]) -> Tensor:
        """Return the model's input for the images."""
        images = [item.image.inputs for item in items]
        if isinstance(self.loaded.preprocess, Preprocess):
            return self.loaded.preprocess.to_batch([one for one in images if isinstance(one, ResizedCrop)], self.device)
        arrays = [one for one in images if one is not None and not isinstance(one, ResizedCrop)]
        return torch.cat([torch.from_numpy(one) for one in arrays]).to(self.device)

    def tune_batch_size(self, item: BatchItem, limit: int) -> int:
        """Return the batch size with the highest throughput, of 4, 8, 16, ... up to `limit`, measured on copies of `item`."""
        limit = min(limit, MAX_CPU if self.device.type == "cpu" else MAX_GPU)
        best_size, best_rate = 1, 0.0
        size = min(FIRST_TRIAL, limit)
        while size <= limit:
            self.batch_size = size
            try:
                if best_rate == 0.0:
                    self.explain_batch([item])  # warm-up: the first call records properties of the layers
                seconds = min(self.time_batch([item] * size) for _ in range(2))
            except (RuntimeError, MemoryError) as error:
                if not is_caused_by_memory(error):
                    raise
                break
            if size / seconds < best_rate * MIN_GAIN:
                break
            best_size, best_rate = size, size / seconds
            if seconds > LONG_TRIAL:
                break
            size *= 2
        self.batch_size = best_size
        return best_size

    def time_batch(self, items: Sequence[BatchItem]) -> float:
        start = time.perf_counter()
        self.explain_batch(items)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model: that of its first parameter."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_label(item: BatchItem, settings: BulkSettings) -> BatchItem:
    """Return the image with an error if the target is its label and the label is missing or not a class of the model."""
    wants_label = any(target.strip().lower() == LABEL for target in settings.targets)
    if item.failure is not None or not wants_label or item.label_class is not None:
        return item
    label = item.image.item.label
    return replace(item, error="no label" if label is None else f"its label {label!r} is not a class of the model")
