"""One case for each fault that was found by attack: what a user does, what should happen, and a check of what happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reliability.groups import Result
from reliability.processes import run_started
from reliability.sandbox import file_problems, snapshot
from reliability.situations import (
    BULK,
    FAST,
    Prepare,
    damaged_run,
    deep_json,
    finished_run,
    foreign_index,
    labels,
    link_loop,
    pipe,
    save_foreign_files,
    save_image,
    saved,
    saved_with_link,
    slow_jpeg,
    starts_with,
    unix_socket,
    weights,
)  # fmt: skip


def nothing(folder: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Fault:
    """A command that used to fail badly. `contains` is part of the message or output, `outputs` are what it may write."""

    title: str
    arguments: tuple[str, ...]
    expected: str
    codes: tuple[int, ...] = (2,)
    contains: str = ""
    prepare: Prepare = nothing
    outputs: tuple[str, ...] = ("cam",)
    shell: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60
    megabytes: float = 2500
    message_lines: int | None = 1

    def run(self, folder: Path) -> Result:
        save_image(folder / "a.png")
        self.prepare(folder)
        before = snapshot(folder)
        observed = run_started(self.arguments, folder, seconds=self.seconds, env=self.env, shell=self.shell)
        problems = observed.problems(self.codes, lines=self.message_lines)
        if self.contains not in observed.err + observed.out:
            problems.append(f"does not contain {self.contains!r}")
        if observed.megabytes > self.megabytes:
            problems.append(f"{observed.megabytes:.0f} MB of memory")
        is_output = partial(starts_with, self.outputs)
        problems += file_problems(before, snapshot(folder), is_output, failed=False)
        return Result.of(self.title, observed, problems)


WEIGHTS = ("--model", "weights.pth?arch=torchvision/resnet18")
LONG = "x" * 300
ESCAPE = "a\x1b[31mb"
EXPORT = ("export", "run", "--target", "top2")
ONE_LINE = "one line, exit code 2"
EARLY = 'exec timeout --preserve-status -s INT {} "$@"'

FAULTS = (
    # writes that fail
    Fault("the disk is full", ("a.png", *FAST), ONE_LINE, contains="cannot be written", shell='ulimit -f 8; "$@"'),
    Fault("the disk is full, bulk", ("bulk", "a.png", "--workers", "0", "-o", "run"), ONE_LINE, shell='ulimit -f 2; "$@"',
          outputs=("run",), message_lines=2),
    Fault("a folder that cannot be created", ("a.png", *FAST, "-o", "/proc/seewhy"), ONE_LINE, contains="cannot be written"),
    Fault("--out is a file", ("a.png", *FAST, "-o", "a.png"), ONE_LINE),
    Fault("--out is below a file", ("a.png", *FAST, "-o", "a.png/out"), ONE_LINE),
    Fault("--out has a name over 255 bytes", ("a.png", *FAST, "-o", LONG), ONE_LINE),
    Fault("an image name over 255 bytes", (LONG + ".png", *FAST), "one line, exit code 1", codes=(1,)),
    Fault("labels with a name over 255 bytes", ("a.png", *FAST, "--labels", LONG), ONE_LINE),
    Fault("stdout is closed", ("a.png", *FAST), "results are written, exit code 0 or one line", codes=(0, 2),
          shell='"$@" >&-'),
    Fault("stdout and stderr are closed", ("a.png", *FAST), "no crash", codes=(0, 2), shell='"$@" >&- 2>&-',
          message_lines=None),
    Fault("stdout is a full disk", ("a.png", *FAST), ONE_LINE, shell='"$@" >/dev/full'),
    Fault("the reader of stdout ends", ("a.png", *FAST), "no message, exit code 141", codes=(0, 141),
          shell='"$@" | head -1; exit ${PIPESTATUS[0]}'),
    # terminal
    Fault("--layers '*'", ("a.png", "--layers", "*"), "maps of the layers that have one", codes=(0,)),
    Fault("--layers without a match", ("a.png", "--layers", "nolayer*"), ONE_LINE, contains="nolayer"),
    Fault("stdout in ASCII", ("ü猫.png", *FAST), "names are escaped", codes=(0,), env={"PYTHONIOENCODING": "ascii"},
          prepare=lambda folder: save_image(folder / "ü猫.png")),
    Fault("LANG=C", ("ü猫.png", *FAST), "names are escaped or shown", codes=(0,),
          env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
          prepare=lambda folder: save_image(folder / "ü猫.png")),
    Fault("stdout in latin-1", ("a.png", *FAST, "--labels", "zh.txt"), "names are escaped", codes=(0,),
          env={"PYTHONIOENCODING": "latin-1"}, prepare=labels("zh.txt", "猫")),
    Fault("20 columns", ("a.png", *FAST), "a narrow table", codes=(0,), env={"COLUMNS": "20"}),
    Fault("control characters in a file name", (f"{ESCAPE}.png", *FAST), "escaped", codes=(0,),
          prepare=lambda folder: save_image(folder / f"{ESCAPE}.png")),
    Fault("control characters in a class name", ("a.png", *FAST, "--labels", "l.txt"), "escaped", codes=(0,),
          prepare=labels("l.txt", ESCAPE)),
    Fault("control characters in an option", ("a.png", "--layers", ESCAPE), "escaped", contains="\\x1b"),
    Fault("control characters in a model name", ("a.png", "--model", ESCAPE), "escaped", contains="\\x1b"),
    Fault("control characters in the name of an option", ("a.png", f"--{ESCAPE}"), "escaped", contains="\\x1b"),
    Fault("a usage error writes nothing", ("a.png", "--methods", "gradcan"), ONE_LINE, contains="gradcam", outputs=()),
    *(Fault(f"Ctrl-C after {delay} s", ("a.png", *FAST), "one line, exit code 130", codes=(130, 0),
            shell=EARLY.format(delay), message_lines=None) for delay in (0.1, 0.2, 0.3, 0.4, 0.8, 1.6)),
    *(Fault(f"SIGTERM after {delay} s", ("a.png",), "one line, exit code 143", codes=(143,), contains="interrupted",
            shell=EARLY.format(delay).replace("INT", "TERM"), message_lines=None) for delay in (0.3, 1.5, 3)),
    # outputs and inputs
    Fault("seewhy . three times", (".", *FAST, "--json"), "one image each time", codes=(0,),
          seconds=240, shell='"$@" >/dev/null && "$@" >/dev/null && test $("$@" | wc -l) = 1'),
    Fault("bulk resumes after an export below its input", ("bulk", *BULK, "-o", "run"), "resumes", codes=(0,),
          contains="finished", prepare=finished_run, outputs=("run", "images/exported"),
          shell='"$1" -m seewhy export run --to png --target top2 -o images/exported && "$@"'),
    Fault("a foreign index.html in --out", ("a.png", "b.png", *FAST), ONE_LINE, contains="index.html",
          prepare=foreign_index, outputs=()),
    Fault("a foreign maps.npz in --out of export", (*EXPORT, "--to", "npz", "-o", "other"), ONE_LINE, contains="maps.npz",
          prepare=lambda folder: [finished_run(folder), save_foreign_files(folder / "other")], outputs=()),
    Fault("a link in a saved folder and \"files\" in its record", ("a.png", *FAST), "nothing elsewhere is deleted",
          codes=(0, 2), prepare=saved_with_link, outputs=("cam/a",)),
    # bulk runs
    Fault("a damaged part is computed again", ("bulk", *BULK, "-o", "run"), "recomputed, with a note", codes=(0,),
          contains="part-000001", prepare=damaged_run, outputs=("run/part-", "run/log-", "run/locks")),
    Fault("a damaged part in summary", ("summary", "run"), "one line that names the file", contains="part-000001",
          prepare=damaged_run, outputs=()),
    *(Fault(f"a damaged part in export --to {kind}", (*EXPORT, "--to", kind, "-o", "new"), "one line that names the file",
            contains="part-000001", prepare=damaged_run, outputs=()) for kind in ("npz", "png", "coco", "fiftyone")),
    # files that are not files
    *(Fault(f"{option} {kind}", ("a.png", *FAST, option, value), ONE_LINE, prepare=prepare)
      for option, prefix in (("--labels", ""), ("--targets", "like:"))
      for kind, path, prepare in (
          ("a named pipe", "pipe", pipe), ("/dev/zero", "/dev/zero", nothing), ("/dev/random", "/dev/random", nothing),
          ("a folder", "/etc", nothing), ("a loop of links", "loop.png", link_loop), ("a socket", "socket", unix_socket),
      )
      for value in (f"{prefix}{path}",)),
    Fault("an image that is a loop of links", ("loop.png", *FAST), "one line, exit code 1", codes=(1,), prepare=link_loop),
    # checkpoints
    Fault("a state dict that contains itself", ("a.png", *FAST, *WEIGHTS), "one line or a map", codes=(0, 2),
          prepare=weights("loop")),
    Fault("0-d tensors as weights", ("a.png", *FAST, *WEIGHTS), ONE_LINE, prepare=weights("0-d")),
    Fault("an expanded head", ("a.png", *FAST, *WEIGHTS), ONE_LINE, prepare=weights("expanded")),
    Fault("deeply nested JSON as a record", ("report", "run"), ONE_LINE, contains="explanation.json",
          prepare=lambda folder: [saved(folder), deep_json("run/explanation.json")(folder)], outputs=()),
    Fault("deeply nested JSON as a job", ("summary", "run"), ONE_LINE, contains="job.json",
          prepare=lambda folder: [finished_run(folder), deep_json("run/job.json")(folder)], outputs=()),
    # cost
    Fault("class names of 5,000 characters", ("a.png", *FAST, "--labels", "l.txt"), "drawn in seconds", codes=(0,),
          prepare=labels("l.txt", "x" * 5000)),
    Fault("a JPEG with 700 scans", ("scans.jpg", *FAST), "refused at once, exit code 1", codes=(1,), contains="scans",
          prepare=slow_jpeg),
    Fault("features --channels 5000", ("features", "a.png", "--channels", "5000"), "bounded memory", codes=(0, 2),
          seconds=240, megabytes=2000),
    # scripts of the world
    *(Fault(f"class names in {language}", ("a.png", *FAST, "--labels", "l.txt"), "shown unchanged", codes=(0,),
            contains=name, prepare=labels("l.txt", name))
      for language, name in (("Chinese", "小型客车"), ("Arabic", "حافلة"), ("Russian", "Автобус"), ("Hindi", "बस"))),
)  # fmt: skip


def run_fault(number: int, folder: Path) -> Result:
    return FAULTS[number].run(folder)


def observed_text(result: Result) -> str:
    """Return how a case ended for the table: its exit code and its last line."""
    message = result.message if len(result.message) <= 160 else result.message[:159] + "…"
    return f"{result.end}: {message}" if message else result.end
