"""The command line: `seewhy IMAGES` and its subcommands. Heavy modules are imported inside commands, so `--help` is fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from seewhy import __version__
from seewhy.cli.argument_errors import check_words
from seewhy.cli.bulk import bulk, export
from seewhy.cli.choose import apply_choice, choose
from seewhy.cli.exits import EXIT_CODES, STDIN, run_command
from seewhy.cli.export_model import export_model
from seewhy.cli.flags import GROUPS, FlagSet, with_flags
from seewhy.cli.image_commands import explain_images
from seewhy.cli.listing import layers, methods, models
from seewhy.cli.report import report
from seewhy.cli.run_options import DrawingOptions, OutputOptions, UseOptions
from seewhy.cli.serve import serve
from seewhy.cli.summary import summary
from seewhy.cli.termination import end_after_ray
from seewhy.cli.trust import metrics, trust
from seewhy.engine.options import ModelOptions, Options
from seewhy.errors import OptionError, UsageError, find_close_matches
from seewhy.terminal import make_console, plain
from seewhy.terminal.streams import escaped_streams

app = App(
    name="seewhy",
    help="Show where a vision model looks: a heatmap for every layer, from one forward and one backward pass.",
    help_epilogue=EXIT_CODES,
    version=__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,  # run_command handles it
)
for command in (trust, choose, layers, methods, metrics, models, report, serve, bulk, export, export_model, summary):
    app.command(command)

COMMANDS = (
    "demo", "features", "trust", "choose", "layers", "methods", "metrics", "models", "report", "serve", "bulk", "export",
    "export-model", "summary",
)  # fmt: skip
LOOKS = Group("Appearance", sort_key=3)
FEATURE_FLAGS = ("layers", "targets", "fit", "channels")
FEATURE_OUTPUT = ("out", "json", "quiet")


@app.default
@with_flags(
    FlagSet(Options, skip=("channels",)),
    FlagSet(ModelOptions),
    FlagSet(DrawingOptions, group=LOOKS),
    FlagSet(OutputOptions),
    FlagSet(UseOptions, group=GROUPS[Options]),
)
def explain(
    images: tuple[str, ...],
    options: Options,
    model: ModelOptions,
    drawing: DrawingOptions,
    output: OutputOptions,
    saved: UseOptions,
) -> int:
    """Print the classes that a model predicts for IMAGES, and draw a heatmap for every layer.

    Parameters
    ----------
    images
        Image files and folders; "-" reads one image from stdin.
    """
    if not images:
        raise UsageError("no image. Pass image files or folders (seewhy bus.jpg), or try: seewhy demo")
    check_no_command(images)
    options, choice = apply_choice(options, saved.use)
    return explain_images(images, options, model, drawing, output, choice=choice)


@app.command
def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("cam")) -> int:
    """Explain the sample images: a cup of espresso, a cat, and both next to each other.

    Parameters
    ----------
    out
        Folder for the results.
    """
    from seewhy.images.samples import SAMPLES, sample

    both, *single = [str(sample(name)) for name in SAMPLES]
    output = OutputOptions(out=out)
    code = explain_images(single, Options(), ModelOptions(), DrawingOptions(), output)
    # Two classes in one image: the entire image must be visible, and each class gets its own maps.
    two_classes = Options(targets=("espresso", "Egyptian cat"), fit="squash")
    code = max(code, explain_images([both], two_classes, ModelOptions(), DrawingOptions(), output))
    console = make_console()
    console.print(f"\nOpen [bold]{plain(str(out))}/cat_espresso/sheet.jpg[/]: one image, two targets.")
    console.print("Next, your own image:           [bold]seewhy photo.jpg[/]")
    console.print("Why this class and not another: select a class under 'Compare with' on the page.")
    return code


@app.command
@with_flags(
    FlagSet(Options, FEATURE_FLAGS, defaults=(("channels", 8),)),
    FlagSet(ModelOptions),
    FlagSet(OutputOptions, FEATURE_OUTPUT),
)
def features(images: tuple[str, ...], options: Options, model: ModelOptions, output: OutputOptions) -> int:
    """Draw the strongest channels of each layer next to the map of the class.

    Parameters
    ----------
    images
        Image files and folders; "-" reads one image from stdin.
    """
    if not images:
        raise UsageError("no image. Pass image files or folders: seewhy features bus.jpg")
    if options.channels < 1:
        raise OptionError("channels", options.channels, "give at least 1.")
    return explain_images(images, options, model, DrawingOptions(), output)


def check_no_command(images: Sequence[str]) -> None:
    """Raise UsageError for a command that is misspelled or behind a flag: it would be searched as an image."""
    for word in images:
        if os.path.lexists(word) or not word.isalpha():
            continue
        if word in COMMANDS:
            raise UsageError(f"no image '{word}'. A command comes first: seewhy {word} ...")
        if matches := find_close_matches(word, COMMANDS):
            raise UsageError(f"no image and no command '{word}' - did you mean: seewhy {matches[0]}?")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code. User errors print one line; they never print a traceback."""
    words = [STDIN if word == "-" else word for word in (sys.argv[1:] if arguments is None else arguments)]

    def command() -> object:
        check_words(words)
        return app(
            words, exit_on_error=False, print_error=False, result_action="return_value", console=console,
            error_console=make_console(stderr=True),
        )  # fmt: skip

    with escaped_streams():
        console = make_console()
        code = run_command(command)
    end_after_ray(code)
    sys.exit(code)
