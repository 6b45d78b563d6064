"""Run the command line in this process."""

from __future__ import annotations

import pytest

import seewhy
from seewhy.cli import main as cli

COFFEE = str(seewhy.sample("coffee"))
CHELSEA = str(seewhy.sample("chelsea"))
CAT_ESPRESSO = str(seewhy.sample("cat_espresso"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `seewhy ARGUMENTS` and return its exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*arguments])
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out, captured.err
