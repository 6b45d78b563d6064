"""The random state is read and restored, also by many threads."""

import subprocess
import sys

import torch

from seewhy.tensors.random_state import preserve_rng

# Garbage collection frees tensors while the random state is read. With `torch.get_rng_state` alone, all threads wait forever.
THREADS = """
import faulthandler, gc, sys, torch
from concurrent.futures import ThreadPoolExecutor
from seewhy.tensors.random_state import preserve_rng

class Cycle:
    def __init__(self):
        self.me, self.tensor = self, torch.ones(1, requires_grad=True) * 2

def work(_):
    for _ in range(300):
        Cycle()
        with preserve_rng(torch.device("cpu")):
            pass

faulthandler.dump_traceback_later(60, exit=True)
sys.setswitchinterval(5e-6)
gc.set_threshold(10)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(16)))
print("finished")
"""


def test_a_block_that_draws_numbers_leaves_the_state_unchanged() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with preserve_rng(torch.device("cpu")):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


def test_many_threads_do_not_wait_for_each_other() -> None:
    run = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False)
    assert run.stdout == "finished\n", run.stderr
