"""Pictures explained a batch at a time: the size found by trying, halved where memory ends, a picture that fails found out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa
import torch
from torch import Tensor

from seewhy.bulk.plan import LABEL, BulkSettings
from seewhy.bulk.rows import BatchItem, as_target_list, failed_rows, in_order, rows_of
from seewhy.engine.pipeline import explain
from seewhy.errors import INPUT_ERRORS, SeewhyError, TargetError, UsageError, shorten_error
from seewhy.explanation.result import Explanation
from seewhy.images.preprocess import ResizedCrop, Preprocess
from seewhy.models.loaded_model import LoadedModel

FIRST, MOST_CPU, MOST_GPU = 4, 32, 512
WORTH_IT = 1.05  # a size must be so much faster than the one before
TOO_MANY = 64  # pictures in a row with the same failure
LONG = 2.0  # seconds; where a batch takes longer, larger ones would gain nothing
KEPT = "What is done stays done; the part in work is not written, and the same command does it again."
Hear = Callable[[str], None]


def ignore(message: str) -> None:
    """The default `hear`."""


class BatchExplainer:
    """Explains batches of pictures with one model and the same questions; the one function that all engines share.

    `size` is how many pictures go at once; it is halved where memory does not suffice. `hear` is told what one should know.
    """

    def __init__(
        self, loaded: LoadedModel, questions: BulkSettings, *, size: int, memory: int, hear: Hear = ignore
    ) -> None:
        self.loaded, self.questions, self.size, self.memory, self.hear = loaded, questions, size, memory, hear
        self.proved = False  # whether the questions were ever answered
        self.in_a_row = ("", 0)  # the words with which the last pictures failed, and how many in a row
        parameter = next(loaded.module.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device

    def rows(self, taken: Sequence[BatchItem]) -> pa.Table:
        """The rows of some pictures in their order: each question and method of a good one, one row of a bad one.

        Raises UsageError where the questions cannot be answered by any of the first pictures.
        """
        good: list[BatchItem] = []
        bad: list[BatchItem] = []
        for one in (askable(one, self.questions) for one in taken):
            (bad if one.reason else good).append(one)
        batches: list[pa.RecordBatch] = []
        places: list[list[int]] = []

        def keep(some: Sequence[BatchItem], made: Sequence[pa.RecordBatch]) -> None:
            batches.extend(made)
            places.extend([one.place for one in some] for _ in made)

        failed = self.explain(good, keep) if good else []
        if failed and len(failed) == len(good) and not self.proved:
            raise failed[0][1]
        bad += [replace(one, error=shorten_error(error)) for one, error in failed]
        if bad:
            keep(bad, [failed_rows(bad, self.loaded.labels)])
        return in_order(batches, places)

    def explain(
        self, taken: Sequence[BatchItem], keep: Callable[[Sequence[BatchItem], Sequence[pa.RecordBatch]], None]
    ) -> list[tuple[BatchItem, Exception]]:
        """Hand the rows of `taken` to `keep`; gives the pictures that cannot be explained, and why."""
        failed: list[tuple[BatchItem, Exception]] = []
        waiting = [list(taken[start : start + self.size]) for start in range(0, len(taken), self.size)]
        while waiting:
            some = waiting.pop(0)
            try:
                keep(some, self.batch(some))
                self.proved, self.in_a_row = True, ("", 0)
            except (SeewhyError, *INPUT_ERRORS, MemoryError) as error:
                if is_device(error):
                    raise UsageError(f"the device failed ({shorten_error(error)}). {KEPT}") from None
                if len(some) == 1:
                    failed.append((some[0], UsageError("not enough memory") if is_memory(error) else error))
                    # A class that is not in the picture is its own matter, and may be common.
                    if not isinstance(error, TargetError):
                        self.count(shorten_error(failed[-1][1]))
                elif is_memory(error):
                    waiting[:0] = [some[: len(some) // 2], some[len(some) // 2 :]]
                    if len(some) // 2 < self.size:
                        self.size = len(some) // 2
                        self.hear(f"not enough memory for {len(some)} pictures at once: {self.size} from now on")
                else:
                    waiting[:0] = [[one] for one in some]
        return failed

    def count(self, words: str) -> None:
        """Raise UsageError where so many pictures in a row fail with the same words that it cannot be theirs."""
        known, times = self.in_a_row
        self.in_a_row = (words, times + 1 if words == known else 1)
        if self.proved and self.in_a_row[1] >= TOO_MANY:
            raise UsageError(f"{TOO_MANY} pictures in a row failed alike ({words}): that is not theirs. {KEPT}")

    def batch(self, taken: Sequence[BatchItem]) -> list[pa.RecordBatch]:
        """The rows of pictures that are explained together."""
        questions = as_target_list(self.questions, [one.label_class for one in taken])
        inputs = self.inputs(taken)
        e = self.ask(inputs, questions)
        # Questions that mean the same class for every picture of the batch are answered once; here each has its rows.
        apart = (
            [e] * len(questions) if len(e.target_results) == len(questions) else [self.ask(inputs, [one]) for one in questions]
        )
        found: list[pa.RecordBatch] = []
        for number, (name, own) in enumerate(zip(self.questions.asked, apart, strict=True)):
            answer = own.target_results[number if own is e else 0]
            found += rows_of(own, name, answer, taken, self.questions.store)
        return found

    def ask(self, inputs: Tensor, questions: Sequence[object]) -> Explanation:
        asked = self.questions
        return explain(
            self.loaded,
            inputs,
            methods=list(asked.methods) or None,
            layers=list(asked.layers),
            read_at=asked.read_at,
            grid=asked.grid,
            targets=list(questions),
            versus=list(asked.versus) or None,
            multilabel=asked.multilabel,
            seed=asked.seed,
            memory=self.memory / 2**20,
        )

    def inputs(self, taken: Sequence[BatchItem]) -> Tensor:
        made = [one.read.inputs for one in taken]
        if isinstance(self.loaded.preprocess, Preprocess):
            return self.loaded.preprocess.to_batch([cut for cut in made if isinstance(cut, ResizedCrop)], self.device)
        return torch.cat([torch.from_numpy(one) for one in made if one is not None and not isinstance(one, ResizedCrop)]).to(
            self.device
        )

    def find_size(self, one: BatchItem, most: int) -> int:
        """The size at which pictures take the least time each, of 4, 8, 16, ... up to `most`; `one` is tried."""
        limit = min(most, MOST_CPU if self.device.type == "cpu" else MOST_GPU)
        size, best = 1, 0.0
        trial = min(FIRST, limit)
        while trial <= limit:
            self.size = trial
            try:
                if best == 0.0:
                    self.batch([one])  # the first use of a model finds out about its layers
                seconds = min(self.timed([one] * trial) for _ in range(2))
            except (RuntimeError, MemoryError) as error:
                if not is_memory(error):
                    raise
                break
            if trial / seconds < best * WORTH_IT:
                break
            size, best = trial, trial / seconds
            if seconds > LONG:
                break
            trial *= 2
        self.size = size
        return size

    def timed(self, taken: Sequence[BatchItem]) -> float:
        start = time.perf_counter()
        self.batch(taken)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def askable(one: BatchItem, questions: BulkSettings) -> BatchItem:
    """A picture with the reason why it cannot be asked, where its label is asked for and means no class."""
    if one.reason is not None or LABEL not in questions.asked or one.label_class is not None:
        return one
    label = one.read.item.label
    return replace(one, error="no label" if label is None else f"its label {label!r} is no class of the model")


def is_device(error: BaseException) -> bool:
    """Whether the device is lost: after such an error each later call fails, whatever the picture."""
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, torch.AcceleratorError) or "CUDA error" in str(known) or "cuDNN" in str(known):
            return not is_memory(known)
        known = known.__cause__ or known.__context__
    return False


def is_memory(error: BaseException) -> bool:
    """Whether memory ended, of the device or of the machine; also where another error tells of it."""
    words = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words):
        return True
    reason = error.__cause__ or error.__context__
    return reason is not None and is_memory(reason)
