"""Upload awkward images to one running local app, which must answer each of them and keep running."""

from __future__ import annotations

import threading
import time
import traceback
from pathlib import Path

import seewhy
from reliability.groups import Group, Result
from support.local_app import LocalApp


def upload_images(images: list[Path], title: str, expected: str) -> Group:
    """Upload each image, and return how the app answered."""
    group = Group(title, expected)
    failures: list[str] = []
    threading.excepthook = lambda args: failures.append("".join(traceback.format_exception(args.exc_value)))
    app = LocalApp([seewhy.load_model(None)])
    try:
        for number, path in enumerate(images):
            start = time.monotonic()
            status, events = app.explain(path.read_bytes(), name=path.name, layers="suggested")
            seconds = time.monotonic() - start
            last = events[-1] if events else {}
            message = str(last.get("error", "page" if "page" in last else ""))
            problems = [f"status {status}"] if status not in (200, 413, 415, 422) else []
            problems += ["traceback: internal server error"] if "internal server error" in message else []
            problems += ["no answer"] if not message else []
            problems += [f"traceback: {text.splitlines()[-1]}" for text in failures]
            failures.clear()
            end = "page" if "page" in last else f"{status}, refused"
            group.results.append(Result(f"{number}: {path.name}", end, message[:200], problems, seconds, 0))
        app.check_works()
    finally:
        app.close()
    return group
