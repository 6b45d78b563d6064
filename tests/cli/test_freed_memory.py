"""Commands keep freed memory: large tensors do not cause page faults again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seewhy.cli.freed_memory import VARIABLES, keep_freed_memory

SCRIPT = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from seewhy.cli.freed_memory import keep_freed_memory
    assert keep_freed_memory()
def allocate():
    for _ in range(5):
        np.ones(40 * 2**20 // 8)
allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
allocate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def page_faults(mode: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    # numpy allocates large arrays with huge pages if it can, which hides the faults.
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    words = [sys.executable, "-c", SCRIPT, mode]
    return int(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not is_glibc(), reason="the setting exists in glibc only")
def test_freed_memory_is_used_again() -> None:
    pages = 5 * 40 * 2**20 // 4096
    assert page_faults("default") > pages / 2  # each array is requested from the system
    assert page_faults("keep") < pages / 100


def test_settings_of_the_user_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
