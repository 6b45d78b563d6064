"""`seewhy report`: write the page of saved runs again."""

from __future__ import annotations

from seewhy.errors import UsageError


def report(*runs: str) -> int:
    """Rebuild report.html of saved runs.

    Parameters
    ----------
    runs
        Folders that seewhy wrote, such as cam/bus.
    """
    from pathlib import Path

    from seewhy.explanation.result import load_explanation
    from seewhy.storage import REPORT

    if not runs:
        raise UsageError("no run. Give a folder that seewhy wrote: seewhy report cam/bus")
    for run in runs:
        path = Path(run) / REPORT
        try:
            load_explanation(run).report(path)
        except UsageError as error:
            if run in str(error):
                raise
            raise UsageError(f"{run}: {error}") from None
        print(path)
    return 0
