"""One torch thread for the tests of methods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: distributing the operations of such small networks costs more than it saves.

    In float64, depthwise convolutions run channel by channel, and threads cost ten times as much as the work itself.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
