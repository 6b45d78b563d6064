"""Run the command line in this process."""

from __future__ import annotations

import pytest

import seewhy
from seewhy.cli import main as cli

COFFEE = str(seewhy.sample("coffee"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main([*arguments])
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err
