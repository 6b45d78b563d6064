"""`seewhy choose`, and `--use`, which applies its result. Heavy modules are imported inside."""

from __future__ import annotations

import dataclasses
import os
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from seewhy.cli.exits import STDIN, print_status
from seewhy.cli.flags import GROUPS, FlagSet, from_stdin, with_flags
from seewhy.cli.freed_memory import keep_freed_memory
from seewhy.cli.run_options import OutputOptions
from seewhy.engine.options import ModelOptions, Options, as_flags, option
from seewhy.errors import UsageError
from seewhy.trust.choices.choice_record import ChoiceRecord, read_choice

if TYPE_CHECKING:
    from seewhy.trust.choices.choice import Choice

OptionsType = TypeVar("OptionsType", bound=Options)
COMPARED = ("methods", "layers", "targets", "fit", "seed", "memory", "multilabel")


@dataclass(frozen=True, eq=False, kw_only=True)
class CompareOptions(Options):
    """The options of `explain` whose defaults or meaning differ when methods and layers are compared."""

    layers: str | Sequence[str] | None = option(
        None,
        'Layers to compare: names, globs ("blocks.5.*"), "stages", "suggested", "every". Default: stages and suggested. The '
        "cost does not grow with their number.",
        "names",
        short="-l",
    )
    methods: str | Sequence[str] | None = option(
        None,
        "Methods to compare, from seewhy methods. Default: gradcam, gradcampp, hirescam, layercam, xgradcam, which share one "
        "backward pass.",
        "names",
    )
    targets: str | Sequence[str] | None = option(
        None,
        "One target for all images, such as a class. Default: the predicted class of each image.",
        "targets",
        short="-t",
    )
    seed: int = option(
        0, "Seed of the images that are drawn, of their order, and of methods that draw numbers.", "number"
    )


@dataclass(frozen=True, kw_only=True)
class ChoiceOutput:
    """How many images are used, and where the result goes."""

    out: Path = option(Path("choice.json"), "File for the result.", "path", short="-o")
    images: int = option(100, "Number of images, drawn at random from those that are given; at least 16.", "number")
    json: bool = option(False, "Print one JSON object to stdout, and nothing else.", "switch")
    quiet: bool = option(False, "Print only errors.", "switch", short="-q")


@with_flags(FlagSet(CompareOptions, COMPARED, group=GROUPS[Options]), FlagSet(ModelOptions), FlagSet(ChoiceOutput))
def choose(inputs: tuple[str, ...], options: CompareOptions, model: ModelOptions, output: ChoiceOutput) -> int:
    """Compare methods and layers for a model on a sample of images, and recommend one.

    Half of the images select, the other half confirms. Apply the result: seewhy photo.jpg --use choice.json

    Parameters
    ----------
    inputs
        Image files and folders: at least 16 images of the kind that you will explain.
    """
    from seewhy.cli.image_sources import find_sources
    from seewhy.storage import check_own
    from seewhy.storage.paths import check_folders, check_overwrite

    if output.images < 1:
        raise UsageError(f"--images {output.images}: give at least 16.")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: give at least 0.")
    if not inputs:
        raise UsageError("no images. Give a folder: seewhy choose photos/")
    for path in inputs:
        if path != STDIN and not os.path.lexists(path):
            raise UsageError(f"{path}: no such file or folder.")
    found = find_sources(from_stdin(inputs), OutputOptions(quiet=output.quiet)).images
    if "-" in found:
        raise UsageError("standard input contains one image, and choosing needs at least 16: give a folder.")
    check_overwrite([output.out], found)
    check_own(output.out)
    check_folders([output.out.parent])
    images = sorted(random.Random(options.seed).sample(found, min(output.images, len(found))))
    keep_freed_memory()
    from seewhy.cli.image_job import pass_progress
    from seewhy.cli.layer_hints import runnable_hints
    from seewhy.engine.option_checks import check_options
    from seewhy.models.loading import load_model
    from seewhy.terminal import encode_json, make_console
    from seewhy.trust.choices.chooser import check_choice, choose_with

    check_options(options)
    check_choice(options, len(images))
    loaded = load_model(
        model.uri, labels=model.labels, device=model.device, log=print_status, allow_code=model.allow_code
    )
    settings = OutputOptions(quiet=output.quiet, json=output.json)
    with runnable_hints(model), pass_progress(settings, make_console(stderr=True), announces=False) as progress:
        choice = choose_with(loaded, images, options, seed=options.seed, progress=progress)
    choice.save(output.out)
    if output.json:
        print(encode_json({**choice.to_dict(), "file": str(output.out)}))
    elif not output.quiet:
        flags = [
            *as_flags(model),
            *as_flags(Options(targets=options.targets, fit=options.fit, multilabel=options.multilabel)),
        ]
        print_choice(choice, shlex.join(["seewhy", "photo.jpg", *flags, "--use", str(output.out)]), output.out)
    return 0


def print_choice(choice: Choice, command: str, path: Path) -> None:
    """Print the recommendation, the finalists, the notes and the cost."""
    from seewhy.terminal import ACCENT, FAINT, make_console, plain, plain_table, print_table

    console = make_console()
    console.print(
        f"[bold {ACCENT}]{plain(choice.method)} at {plain(choice.layer)}[/] ({choice.verdict})", soft_wrap=True
    )
    console.print(plain(choice.reason), soft_wrap=True)
    table = plain_table()
    for title in ("method", "layer"):
        table.add_column(title, no_wrap=True)
    for title in ("SRG", "± error", "screening"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in choice.finalists:
        chosen = (one.candidate.method, one.candidate.layer) == (choice.method, choice.layer)
        style = ACCENT if chosen else "default"
        names = [f"[{style}]{plain(name)}[/]" for name in (one.candidate.method, one.candidate.layer)]
        table.add_row(*names, f"{one.mean:.3f}", f"{one.error:.3f}", f"{one.screened:.2f}")
    console.print()
    print_table(console, table)
    for note in choice.notes:
        console.print(plain(note), style=FAINT, soft_wrap=True)
    record = choice.record
    spared = f" instead of {record['full_passes']:,}" if record["full_passes"] > record["passes"] else ""
    console.print(
        f"{record['candidates']} candidates, {record['images']} images, {record['passes']:,} forward passes{spared}, "
        f"{record['seconds']:.0f} s",
        style=FAINT, soft_wrap=True,
    )  # fmt: skip
    console.print(f"\nWrote [bold]{plain(str(path))}[/]. Apply it: [bold]{plain(command)}[/]", soft_wrap=True)


def apply_choice(options: OptionsType, path: Path | None) -> tuple[OptionsType, ChoiceRecord | None]:
    """Return options with the method and layer of a saved choice. Raises UsageError if they are also set otherwise."""
    if path is None:
        return options, None
    record = read_choice(path)
    for name in ("methods", "layers"):
        if getattr(options, name) is not None:
            raise UsageError(f"--use {path} sets the method and the layer, so remove --{name}.")
    return dataclasses.replace(options, methods=(record["method"],), layers=(record["layer"],)), record


def check_model(record: ChoiceRecord, uri: str, weights: str) -> None:
    """Print a note if a choice was made for another model or for other weights."""
    if record["model"] != uri:
        print_status(f"note: the choice was made for {record['model']}, and this model is {uri}")
    elif record["weights"] != weights:
        print_status(f"note: the choice was made for other weights of {uri}")
