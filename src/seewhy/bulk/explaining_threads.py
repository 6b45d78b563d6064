"""Explain batches in several threads, in order.

Half of the time between two batches is Python code, which uses one core, and the decoder process takes a core from threads that
wait for each other. Two threads that explain separate batches, each with half of PyTorch's threads, keep all cores busy: on two
cores, a job that explains the suggested layer of EfficientNet-Lite0 is 1.3 times as fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import pyarrow as pa
import torch
from torch import nn

from seewhy.bulk.batch_explainer import BatchExplainer, device_of
from seewhy.bulk.rows import BatchItem
from seewhy.tensors.random_state import count_changes

Batch = Sequence[BatchItem]


class ExplainingThreads:
    """Explains batches with several explainers, each in its own thread.

    Args:
        make: Returns an explainer.
        count: The number of explainers. Maps depend on it in their last digits, so it must be the same when a job resumes.
    """

    def __init__(self, make: Callable[[], BatchExplainer], count: int) -> None:
        self.count, self.torch_threads = count, torch.get_num_threads()
        self.idle: SimpleQueue[BatchExplainer] = SimpleQueue()
        for _ in range(count):
            self.idle.put(make())
        self.pool = ThreadPoolExecutor(count, "explain", self.limit_threads) if count > 1 else None
        self.lookahead = 0  # batches that are explained before the result of the first one is returned

    def limit_threads(self) -> None:
        """Set the number of PyTorch's threads for one explainer."""
        torch.set_num_threads(max(1, self.torch_threads // self.count))

    def tables(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, pa.Table]]:
        """Yield each batch and its rows, in order."""
        waiting: deque[tuple[Batch, Future[pa.Table]]] = deque()
        for batch in batches:
            if self.pool is None:
                yield batch, self.explain(batch)
                continue
            changes = count_changes()
            waiting.append((batch, self.pool.submit(self.explain, batch)))
            if len(waiting) > self.lookahead:
                first, table = waiting.popleft()
                yield first, table.result()
            # All threads share one random state. A network that draws numbers, such as one with random masks, gives the same
            # result in every run only if its batches are explained one after the other.
            if not self.lookahead and count_changes() == changes:
                self.lookahead = self.count
        for first, table in waiting:
            yield first, table.result()

    def explain(self, batch: Batch) -> pa.Table:
        explainer = self.idle.get()
        try:
            return explainer.rows(batch)
        finally:
            self.idle.put(explainer)

    def stop(self) -> None:
        """End the threads after their current batches."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self.torch_threads)


def explainer_count(model: nn.Module) -> int:
    """Return the number of explainers that is fastest for a model."""
    return 2 if device_of(model).type == "cpu" and torch.get_num_threads() > 1 else 1
