"""Start child Python processes that do not import modules from the current directory.

`python -m` and `python -c`, which loky and multiprocessing use, put the current directory first on `sys.path`. If it is the
folder of a dataset, a file in it named `random.py` or `pandas.py` would run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from seewhy.models.permitted_code import permitted_folders

if TYPE_CHECKING:
    from ray.job_config import JobConfig

SAFE_PATH = "PYTHONSAFEPATH"
ENVIRONMENT = threading.RLock()  # all threads share the environment


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep child processes that start inside the block from searching the current directory for modules.

    >>> import subprocess, sys
    >>> with safe_path():
    ...     subprocess.check_output([sys.executable, "-c", "import sys; print(sys.flags.safe_path)"]).strip()
    b'True'
    """
    with ENVIRONMENT:
        before = os.environ.get(SAFE_PATH)
        os.environ[SAFE_PATH] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[SAFE_PATH]
            else:
                os.environ[SAFE_PATH] = before


def shared_signals() -> list[signal.Signals]:
    """Return the signals that a terminal or a scheduler sends to all processes of a job."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Handle signals at the end of the block, and keep the handlers: `ray.init` sets one for SIGTERM that exits with code 15.

    If a signal interrupted `ray.init`, some processes of Ray would never end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    set_handler: Any = signal.signal
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in shared_signals()}
    handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for number in handlers:
        set_handler(number, lambda number, _: received.append(number))
    signal.signal = lambda number, handler: signal.getsignal(number)  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler
        for number, handler in handlers.items():
            set_handler(number, handler)
    if received:
        signal.raise_signal(received[0])


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block these signals in child processes that start inside the block; this process receives them at its end.

    A child that is interrupted while it imports its modules would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, shared_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_ray_config() -> JobConfig:
    """Return a configuration without the current directory, which Ray adds to the module path of its workers.

    The directory is kept if this process imports modules from it already, or if the user allowed running code from it.
    """
    from ray.job_config import JobConfig

    current = os.getcwd()
    is_allowed = current in permitted_folders or current in map(os.path.abspath, sys.path)

    class SafeJobConfig(JobConfig):  # type: ignore[misc, unused-ignore]
        def _serialize(self) -> str:
            paths = self._py_driver_sys_path  # Ray has just added the current directory
            self._py_driver_sys_path = [path for path in paths if is_allowed or os.path.abspath(path) != current]
            return str(super()._serialize())

    return SafeJobConfig()
