"""The random cases: tampered files, command lines, file names, images. Each function runs the case of one seed in a folder."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from reliability.groups import Result
from reliability.processes import Observed, run_forked
from reliability.sandbox import file_problems, snapshot
from reliability.situations import BULK, FAST, FOREIGN, pristine, save_foreign_files, save_image, starts_with
from support.awkward_images import awkward_images
from support.hostile_names import hostile_names
from support.random_commands import random_command
from support.run_tampering import tamper_run
from support.tampering import tamper


def command(*arguments: str) -> Callable[[], int | None]:
    """Return an action that runs the command line in its process."""

    def run() -> int | None:
        from seewhy.cli.main import main

        main(arguments)
        return None

    return run


def tampered_explanation(seed: int, folder: Path) -> Result:
    """Tamper with a saved explanation, then rebuild its page, load it and use everything that it offers."""
    shutil.copytree(pristine("saved") / "0", folder / "run")
    save_foreign_files(folder / "other")
    what = tamper(folder / "run", random.Random(seed))
    before = snapshot(folder)
    observed = run_forked(command("report", "run"), folder)
    problems = observed.problems((0, 2))
    problems += file_problems(before, snapshot(folder), {"run/report.html"}.__contains__, failed=observed.code != 0)
    if not problems:
        used = run_forked(use_explanation, folder)
        problems = [f"in Python: {problem}" for problem in used.problems((0,))]
        observed = used if problems else observed
    return Result.of(f"{seed}: {what}", observed, problems)


def use_explanation() -> int:
    """Load the explanation in ./run, and draw, select and save what it contains. UsageError is an accepted end."""
    import seewhy
    from seewhy.errors import SeewhyError

    try:
        e = seewhy.load_explanation("run")
        repr(e), e.to_dict(), e.report()
        for method, target, layer in list(e.maps)[:3]:
            (
                e.map(method, target, layer),
                e.overlay(method, target, layer),
                e.box(method=method, target=target, layer=layer),
            )
        e.contact_sheet(e.methods[0], e.targets[0])
        e.save("copy")
    except SeewhyError as error:
        print(error)
    return 0


def tampered_run(seed: int, folder: Path) -> Result:
    """Tamper with a bulk run, then summarize, export, read or resume it."""
    shutil.copytree(pristine("bulk"), folder, dirs_exist_ok=True)
    for name in ("out", "run/mine"):
        save_foreign_files(folder / name)
    what = tamper_run(folder / "run", random.Random(seed))
    uses = {
        "summary": (command("summary", "run"), ("run/summary",)),
        "npz": (command("export", "run", "--to", "npz", "--target", "top2", "--out", "new"), ("new",)),
        "png": (command("export", "run", "--to", "png", "--target", "top2", "--out", "new"), ("new",)),
        "coco": (command("export", "run", "--to", "coco", "--target", "top2", "--out", "new"), ("new",)),
        "fiftyone": (command("export", "run", "--to", "fiftyone", "--target", "top2", "--out", "new"), ("new",)),
        "read": (use_run, ()),
        "resume": (command("bulk", *BULK, "--out", "run", "--quiet"), ("run/part-", "run/log-", "run/locks")),
    }
    name = list(uses)[seed % len(uses)]
    action, outputs = uses[name]
    before = snapshot(folder)
    observed = run_forked(action, folder)
    problems = observed.problems((0, 2))
    is_output = partial(starts_with, outputs)
    problems += file_problems(before, snapshot(folder), is_output, failed=observed.code == 2 and name != "resume")
    return Result.of(f"{seed}: {what}; {name}", observed, problems)


def use_run() -> int:
    """Read the run in ./run in every way. UsageError is an accepted end."""
    import seewhy
    from seewhy.errors import SeewhyError

    try:
        run = seewhy.read_run("run")
        repr(run), len(run), run.layers, run.failed, run.table, list(run.rows("gradcam", "top1"))
        run.maps("gradcam", "top1"), run.to_pandas("gradcam", "top1")
    except SeewhyError as error:
        print(error)
    return 0


def random_command_line(seed: int, folder: Path) -> Result:
    """Run a random command line next to files of others."""
    images = []
    for number in range(2):
        save_image(folder / f"{number}.png", number)
        images.append(f"{number}.png")
    save_foreign_files(folder / "cam")
    save_foreign_files(folder)
    arguments = random_command(random.Random(seed), images, "out")
    before = snapshot(folder)
    observed = run_forked(command(*arguments), folder, seconds=120)
    problems = observed.problems((0, 1, 2))
    outputs = ("out", "cam", *(word for word in arguments if word and not word.startswith("-") and word not in images))
    problems += file_problems(before, snapshot(folder), partial(starts_with, outputs), failed=observed.code == 2)
    problems += [f"changed {path!r}" for path in changed_foreign_files(folder)]
    return Result.of(f"{seed}: {' '.join(map(repr, arguments))}", observed, problems)


def changed_foreign_files(folder: Path) -> list[str]:
    paths = [(folder / place / name, content) for place in (".", "cam") for name, content in FOREIGN.items()]
    return [str(path.relative_to(folder)) for path, content in paths if path.read_bytes() != content]


def hostile_name(seed: int, folder: Path) -> Result:
    """Explain an image with a hostile name: named directly, found in a folder, in a bulk job, or as the output folder."""
    names = hostile_names()
    name = names[seed % len(names)]
    text, inside = os.fsdecode(name), os.path.join(os.fsencode(folder), b"in")
    os.mkdir(inside)
    try:
        save_image(os.path.join(inside, name + b".png"), seed)
    except (OSError, ValueError):  # a name that this file system refuses
        save_image(os.path.join(inside, b"plain.png"), seed)
    variants = {
        "image": [f"in/{text}.png", *FAST], "folder": ["in", *FAST, "--json"],
        "bulk": ["bulk", "in", "--workers", "0", "--out", "cam"], "out": ["in", *FAST, "--out", f"cam/{text}"],
        "labels": ["in", *FAST, "--labels", text], "target": ["in", *FAST, "--targets", text],
    }  # fmt: skip
    kind = list(variants)[seed // len(names) % len(variants) if seed >= len(names) else seed % len(variants)]
    before = snapshot(folder)
    observed = run_forked(command(*variants[kind]), folder)
    problems = observed.problems((0, 1, 2))
    allowed = partial(starts_with, ("cam", os.path.normpath(f"cam/{text}")) if "\0" not in text else ("cam",))
    problems += file_problems(before, snapshot(folder), allowed, failed=False)
    return Result.of(f"{seed}: {kind} {name!r}", observed, problems)


@cache
def images(count: int) -> list[Path]:
    import tempfile

    return awkward_images(Path(tempfile.mkdtemp(prefix="awkward-")), count, 0)


def awkward_image(entry: str, count: int, seed: int, folder: Path) -> Result:
    """Pass an awkward image to the main command ("main") or a bulk job ("bulk")."""
    path = images(count)[seed % count]
    shutil.copy(path, folder / path.name)
    before = snapshot(folder)
    arguments = {
        "main": [path.name, *FAST],
        "bulk": ["bulk", path.name, "--workers", "0", "--out", "cam"],
    }[entry]
    observed: Observed = run_forked(command(*arguments), folder, seconds=30)
    problems = observed.problems((0, 1, 2))
    problems += file_problems(before, snapshot(folder), partial(starts_with, ("cam",)), failed=observed.code == 2)
    return Result.of(f"{seed}: {entry} {path.name}", observed, problems)
