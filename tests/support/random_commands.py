"""Random command lines: valid options with awkward values, missing values, unknown and repeated flags, wrong subcommands.

    .venv/bin/python tests/support/random_commands.py --cases 2000

A case runs in a process that is forked from one with the model loaded, in an empty folder. It must end with exit
code 0, 1 or 2, and print at most one line of error, never a traceback. A command with exit code 2 must not leave a file.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS = (
    "",
    "",
    "",
    "features",
    "layers",
    "methods",
    "models",
    "report",
    "bulk",
    "export",
    "summary",
    "demo",
    "serve",
)
TEXTS = (
    "", " ", "-", "--", "---", "=", ",", ",,", "*", "**", "[", "[]", "[!", "?", "#", "a#99", "!x", "x" * 3000, "\x00",
    "a\x00b", "\x1b[31mred\x1b[0m", "\x9b31m", "\u202egpj.exe", "\u2028", "\r\n", "\u0663", "\u00b2", "\udce9",
    "\ufeff", "a b", "'", '"', "`", "\\", "\\\\", "[/]", "[bold]x[/bold]", "[link=http://x]y[/link]", ":smile:", "%s",
    "{0}", "{", "$(id)", "~", "~nobody/x", "/", ".", "..", "../..", "/dev/null", "/dev/full", "/proc/self/mem",
    "file:///etc/passwd", "http://127.0.0.1:9/x", "nan", "NaN", "inf", "-inf", "None", "true", "no", "1_000", "0x10",
    "1e3", "+5", "-0", "\uff15", "top3", "every", "gradcam", "gradcam(", "gradcam()", "scorecam(batch_size=-1)",
    "smooth(smooth(gradcam))", "(" * 2000, "smooth(" * 500, "region:bus", "point:bus@1", "point:0@-5,1e9",
    "box:0@1,2,3,4", "box:@", "text:", "like:", "like:/nonexistent.jpg", "output:0", "output:-1", "probability:0",
    "probability:", "all", "fast", "suggested", "embedded", "embedded?x=1", "timm/", "torchvision/nosuch", "hf/",
    "hf/a/b", "open_clip/x@y", "local-dir:", "local-dir:/nonexistent", "os:system", "a:b", "x.pth",
    "x.safetensors?arch=timm/resnet18", "cpu", "cuda:99", "mps", "cuda:-1", "cpu:abc", "meta", "own", "shared",
    "original", "classic", "viridis", "espresso", "0", "999", "14x14", "14x14+1", "0x0", "x", "1x1x1x1x1x1x1x1x1",
)  # fmt: skip
NUMBERS = (
    "0", "1", "-1", "2", "5", "7", "224", "255", "0.5", "-0.5", "1e-300", "1e300", "1e309", "nan", "inf", "-inf",
    "65535", "65536", str(2**31), str(2**63), str(2**64), "-" + str(2**63), "9" * 400, "9" * 5000, "0.1.2", "1,5",
    "1 000", "\u0663", "\u00bd", "", "-", "ten",
)  # fmt: skip
WORD_FLAGS = (
    "--version",
    "--help",
    "-h",
    "-V",
    "--modle",
    "--no-json",
    "--site",
    "-x",
    "--json=maybe",
    "--json",
    "-q",
    "-qq",
    "--",
    "-",
    "--=",
    "--out=",
    "-o",
)


def random_command(generator: random.Random, images: list[str], out: str) -> list[str]:
    """Return one random command line. Where an option is a folder, `out` or a path below it is the most likely value."""
    command = generator.choice(COMMANDS)
    words = [command] if command else []
    if generator.random() < 0.03:
        words = [generator.choice(("explian", "Layers", "bulk ", "help", "\x1b[1mx", "exp*"))]
    flags = command_flags(command)
    if command in ("", "features", "bulk") and generator.random() < 0.85:
        words += generator.sample(images, min(len(images), generator.choice((1, 1, 1, 2))))
    elif generator.random() < 0.6:
        words.append(generator.choice((*TEXTS, *images, out)))
    for _ in range(generator.choice((0, 1, 1, 2, 2, 3, 5))):
        words += random_flag(generator, flags, images, out)
    if (command in ("bulk", "export") and generator.random() < 0.8) or (
        command in ("", "features", "demo") and "--out" not in words
    ):
        words += ["--out", out]
    if generator.random() < 0.05:
        generator.shuffle(words)
    return words


def random_flag(generator: random.Random, flags: Sequence[str], images: list[str], out: str) -> list[str]:
    """Return a flag with a value, without one, or something similar to a flag."""
    if generator.random() < 0.1 or not flags:
        return [generator.choice(WORD_FLAGS)]
    flag = generator.choice(flags)
    if flag in ("--out", "-o"):
        value = generator.choice(
            (
                out,
                out,
                f"{out}/deep/er",
                "",
                "-",
                "/dev/null",
                "/dev/null/x",
                "/proc/x",
                f"{out}/" + "n" * 300,
                images[0],
                "a\x00b",
            )
        )
    else:
        value = generator.choice(TEXTS if generator.random() < 0.5 else NUMBERS)
    shape = generator.random()
    if shape < 0.1:
        return [flag]
    if shape < 0.3:
        return [f"{flag}={value}"]
    if shape < 0.4:
        return [flag, value, flag, value]
    return [flag, value]


def command_flags(command: str) -> list[str]:
    """Return the flags of a subcommand, read from its definition."""
    from seewhy.cli.main import app

    selected = app[command] if command else app
    arguments = selected.assemble_argument_collection()
    return [name for argument in arguments for name in argument.names if name.startswith("-")]


# Running them


@contextmanager
def stubbed() -> Iterator[None]:
    """Replace what takes long in a valid command: the model is loaded once, maps and the local app are not computed."""
    import seewhy
    import seewhy.cli.image_job as image_job
    import seewhy.models.loading as loading

    embedded, load = seewhy.load_model(), loading.load_model

    def load_once(model: Any = None, **options: Any) -> Any:
        is_plain = (
            model in (None, "embedded")
            and options.get("labels") is None
            and options.get("device") in (None, "auto", "cpu")
        )
        return embedded if is_plain else load(model, **options)

    def explain(self: Any, image: str, folder: Path) -> None:
        image_job.load_image(sys.stdin.buffer if image == "-" else image, max_pixels=self.output.max_pixels)

    saved = image_job.ImageJob.explain
    loading.load_model, image_job.ImageJob.explain = load_once, explain
    try:
        yield
    finally:
        loading.load_model, image_job.ImageJob.explain = load, saved


def run_forked(command: Sequence[str], folder: Path, seconds: float = 60) -> tuple[int, str, str]:
    """Run a command in a fork of this process, in `folder`. Return its exit code (-9 after `seconds`), stdout and stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    child = os.fork()
    if not child:
        run_child(command, folder, log)
    end = time.monotonic() + seconds
    while not (waited := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            waited = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    out, err = (Path(f"{log}.{name}").read_text("utf-8", "replace") for name in ("out", "err"))
    return os.waitstatus_to_exitcode(waited[1]), out, err


def run_child(command: Sequence[str], folder: Path, log: Path) -> None:
    import traceback

    code = 99
    try:
        os.chdir(folder)
        import torch

        torch.set_num_threads(1)  # a fork cannot use the threads of its parent
        limit = 12 * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.stdin = open(os.devnull)  # noqa: SIM115
        sys.stdout = open(f"{log}.out", "w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(f"{log}.err", "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        import seewhy.bulk.job
        import seewhy.server
        from seewhy.cli.main import main

        seewhy.server.serve = lambda *_, **__: None
        seewhy.bulk.job.run_job = lambda *_, **__: seewhy.bulk.job.Outcome(0, 0, 0, 1, 0, 0.1)
        try:
            main([*command])
        except SystemExit as error:
            code = int(error.code or 0)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def problems_of(code: int, err: str, folder: Path, out: str) -> list[str]:
    """Return what is wrong with the end of a command."""
    problems = [] if code in (0, 1, 2) else [f"exit code {code}"]
    if "Traceback" in err or "Exception ignored" in err:
        problems.append("a traceback")
    if any(not (sign.isprintable() or sign == "\n") for sign in err):
        problems.append("control characters")
    errors = [line for line in err.splitlines() if line.startswith("seewhy: ")]
    if code == 2 and len(errors) != 1:
        problems.append(f"{len(errors)} lines of error")
    if code == 2 and (files := [path for path in (*folder.rglob("*"), *Path(out).rglob("*"))]):
        problems.append(f"a usage error wrote {files[0].name}")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import seewhy

    images = [str(seewhy.sample("coffee")), str(seewhy.sample("chelsea"))]
    generator, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as home, stubbed():
        for index in range(options.cases):
            folder, out = Path(home, f"{index}"), str(Path(home, f"{index}-out"))
            command = random_command(generator, images, out)
            code, _, err = run_forked(command, folder, 90)
            if problems := problems_of(code, err, folder, out):
                failed += 1
                print(f"{index}: {problems} {shlex.join(command)[:600]!r}\n{err[-1500:]}", flush=True)
    print(f"{options.cases} commands, {failed} with problems")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
