"""Random command lines end with exit code 0, 1 or 2 and at most one line of error."""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import pytest

import seewhy
from support.command import COFFEE
from support.random_commands import problems_of, random_command, run_forked, stubbed


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later, in a process with threads
def test_random_commands_never_print_a_traceback(embedded: seewhy.LoadedModel, tmp_path: Path) -> None:
    generator = random.Random(7)
    with stubbed():
        for index in range(6):
            out = str(tmp_path / f"{index}-out")
            command = random_command(generator, [COFFEE], out)
            folder = tmp_path / f"{index}"
            code, _, err = run_forked(command, folder)
            assert not problems_of(code, err, folder, out), f"{shlex.join(command)}\n{err}"
