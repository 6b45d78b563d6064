"""The command line. Everything heavy is imported inside the commands, so that `--help` is instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from rich.markup import escape

from seewhy import __version__
from seewhy.cli import commands
from seewhy.cli.bulk import bulk, export
from seewhy.cli.exits import run_command, print_status
from seewhy.cli.summary import summary
from seewhy.errors import UsageError
from seewhy.methods.catalog import GROUPS, split, split_targets

EPILOGUE = "Exit codes: 0 done, 1 some pictures failed, 2 wrong usage, 130 interrupted."

app = App(
    name="seewhy",
    help="See why a vision network decides as it does: a heat map for every layer, from one forward and one backward pass.",
    help_epilogue=EPILOGUE,
    version=__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,  # ours says what is finished
)
what = Group("What to explain", sort_key=1)
looks = Group("How it looks", sort_key=2)
output = Group("Output", sort_key=3)

Model = Annotated[str | None, Parameter(name=["--model", "-m"], group=what)]
Classes = Annotated[int | None, Parameter(group=what)]
Names = list[str] | None
AllowCode = Annotated[bool, Parameter(group=what)]
listed = (commands.layers, commands.methods, commands.models, commands.report, commands.serve)
for command in (*listed, bulk, export, summary):
    app.command(command)
STDIN = "stdin:"  # stands for "-", which would be read as an option


@app.default
def explain(
    *pictures: str,
    model: Model = None,
    layers: Annotated[Names, Parameter(name=["--layers", "-l"], group=what)] = None,
    read_at: Annotated[Literal["convolution", "activation"], Parameter(group=what)] = "convolution",
    grid: Annotated[str | None, Parameter(group=what)] = None,
    methods: Annotated[Names, Parameter(group=what)] = None,
    targets: Annotated[Names, Parameter(name=["--targets", "-t"], group=what)] = None,
    versus: Annotated[Names, Parameter(group=what)] = None,
    multilabel: Annotated[bool, Parameter(group=what)] = False,
    label: Annotated[str | None, Parameter(group=what)] = None,
    fit: Annotated[Literal["crop", "squash", "pad"] | None, Parameter(group=what)] = None,
    labels: Annotated[str | None, Parameter(group=what)] = None,
    num_classes: Classes = None,
    allow_code: AllowCode = False,
    style: Annotated[Literal["fade", "blend", "classic"], Parameter(group=looks)] = "fade",
    colors: Annotated[str | None, Parameter(group=looks)] = None,
    opacity: Annotated[float | None, Parameter(group=looks)] = None,
    scale: Annotated[str, Parameter(group=looks)] = "own",
    size: Annotated[str, Parameter(group=looks)] = "1024",
    out: Annotated[Path, Parameter(name=["--out", "-o"], group=output)] = Path("cam"),
    top: Annotated[int, Parameter(group=output)] = 5,
    json: Annotated[bool, Parameter(group=output)] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], group=output)] = False,
    device: Annotated[str, Parameter(group=output)] = "auto",
    seed: Annotated[int, Parameter(group=output)] = 0,
    max_pixels: Annotated[int, Parameter(group=output)] = 50_000_000,
    memory: Annotated[int, Parameter(group=output)] = 256,
) -> int:
    """Name what a network sees in PICTURES, and draw for every layer where it sees it.

    Parameters
    ----------
    pictures
        Picture files and folders of them; "-" reads one picture from stdin.
    model
        torchvision/NAME, timm/NAME, NAME, hf/ORG/NAME, open_clip/NAME@WEIGHTS, local-dir:FOLDER, or
        weights.safetensors?arch=timm/NAME; without it the network in the package.
    layers
        "every" convolution (default), "suggested", "convs", "blocks", "stages", "all", names, globs ("blocks.5.*"), classes
        ("Conv2d"), positions ("-1").
    read_at
        Read each convolution at its own output, or at the activation after it.
    grid
        How tokens lie on the picture where that cannot be told: "14x14", or "14x14+1" with one token before them.
    methods
        Names from `seewhy methods`, with settings: "gradcam,scorecam(batch_size=64),smooth(layercam)"; several make a
        comparison. "all" compares all that fit the model, "fast" those without forwards of their own, at the suggested layer.
        Default gradcam, for questions about a place hirescam.
    targets
        Classes by index or name, or topK ("top3"). Default: the predicted class. Also "region:bus", "point:bus@120,200",
        "box:person@10,20,110,220" (photo pixels), "probability:bus", "logprobability:bus", "output:0", "text:a red bus" and
        "like:other.jpg", for networks that answer such questions; of these one for each --targets.
    versus
        Why the targets and not these: classes by index or name (--targets 654 --versus 829).
    multilabel
        Each class has a probability of its own, beside the others.
    label
        What the picture really shows (index or name): prints how the network ranks it.
    fit
        How a photo meets the input: "crop" (the model's own), "squash" (all of it, distorted), "pad" (all of it).
    labels
        A text file with the class names, one a line, or "cat,dog". For CLIP they are the classes.
    num_classes
        How many classes the network was trained for, where that is not in the name or in the weights.
    allow_code
        Run the code that a --model of the form module:function names.
    style
        "fade": opacity follows the map; "blend": equal opacity; "classic": 224x224, jet, min-max, as in the tutorial.
    colors
        viridis, inferno (default), magma, plasma, cividis, turbo, jet or gray.
    opacity
        Of the strongest evidence, 0 to 1. Default 0.8 for fade, 0.5 for blend.
    scale
        "own": each map in shares of its own maximum; "shared": of the maximum over all targets, so a weak answer looks weak.
    size
        Longest side of an overlay in pixels, or "original".
    out
        Folder for the results; each picture gets its own inside.
    top
        How many classes to print.
    json
        Print one JSON object a line for each picture, and nothing else, to stdout.
    quiet
        Print nothing but errors.
    device
        auto, cpu, cuda, cuda:1 or mps.
    seed
        For methods that draw random numbers and name no seed of their own.
    max_pixels
        Refuse pictures larger than this before decoding them.
    memory
        Megabytes for a batch of changed pictures, for methods that ask the network again.
    """
    if not pictures:
        raise UsageError("no picture. Give picture files or folders (seewhy bus.jpg), or try: seewhy demo")
    wanted = split(methods)
    everywhere = "suggested" if {*GROUPS} & {*map(str.lower, wanted or [])} else "every"
    settings = dict(
        layers=split(layers) or [everywhere], read_at=read_at, grid=grid, methods=wanted, targets=split_targets(targets),
        versus=split_targets(versus), multilabel=multilabel, label=label,
        top=top, fit=fit, style=style, colors=colors, opacity=opacity, scale=scale, size=size, out=out,
        max_pixels=max_pixels, as_json=json, quiet=quiet, memory=memory, seed=seed, labels=labels,
        allow_code=allow_code,
    )  # fmt: skip
    return explain_pictures(pictures, settings, model=model, num_classes=num_classes, device=device)


@app.command
def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("cam")) -> int:
    """Explain the pictures that come with seewhy: a cup of espresso, a cat, and both side by side.

    Parameters
    ----------
    out
        Folder for the results.
    """
    from seewhy.images.samples import SAMPLES, sample
    from seewhy.terminal import make_console

    names = [str(sample(name)) for name in SAMPLES]
    code = explain_pictures(names[1:], {"out": out})
    # Two classes in one picture: all of it must be seen, and each class gets its own maps.
    both = {"out": out, "targets": ["espresso", "Egyptian cat"], "fit": "squash"}
    code = max(code, explain_pictures(names[:1], both))
    stdout = make_console()
    stdout.print(f"\nLook at [bold]{escape(str(out))}/cat_espresso/sheet.jpg[/]: one picture, two answers.")
    stdout.print("Next, a picture of yours:  [bold]seewhy photo.jpg[/]")
    stdout.print("Why one class and another: [bold]seewhy photo.jpg --targets top3[/]")
    return code


@app.command
def features(
    *pictures: str,
    model: Model = None,
    layers: Annotated[Names, Parameter(name=["--layers", "-l"], group=what)] = None,
    targets: Annotated[Names, Parameter(name=["--targets", "-t"], group=what)] = None,
    channels: Annotated[int, Parameter(group=what)] = 8,
    fit: Annotated[Literal["crop", "squash", "pad"] | None, Parameter(group=what)] = None,
    labels: Annotated[str | None, Parameter(group=what)] = None,
    num_classes: Classes = None,
    allow_code: AllowCode = False,
    out: Annotated[Path, Parameter(name=["--out", "-o"], group=output)] = Path("cam"),
    json: Annotated[bool, Parameter(group=output)] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], group=output)] = False,
    device: Annotated[str, Parameter(group=output)] = "auto",
) -> int:
    """Draw the strongest channels of each layer as they are, beside the map of the class.

    Parameters
    ----------
    pictures
        Picture files and folders of them; "-" reads one picture from stdin.
    model
        As for the main command.
    layers
        As for the main command; "every" convolution by default.
    targets
        The class whose map is drawn beside the channels. Default: the predicted class.
    channels
        How many channels of each layer.
    fit
        How a photo meets the input: "crop", "squash" or "pad".
    labels
        A text file with the class names, one a line, or "cat,dog". For CLIP they are the classes.
    num_classes
        How many classes the network was trained for, where that is not in the name or in the weights.
    allow_code
        Run the code that a --model of the form module:function names.
    out
        Folder for the results: features.jpg of each picture, with maps and record.
    json
        Print one JSON object a line for each picture, and nothing else, to stdout.
    quiet
        Print nothing but errors.
    device
        auto, cpu, cuda, cuda:1 or mps.
    """
    if not pictures:
        raise UsageError("no picture. Give picture files or folders: seewhy features bus.jpg")
    if channels < 1:
        raise UsageError(f"--channels {channels}: give at least 1.")
    settings = dict(
        layers=split(layers) or ["every"], targets=split_targets(targets), fit=fit, out=out, as_json=json, quiet=quiet,
        features=channels, labels=labels, allow_code=allow_code,
    )  # fmt: skip
    return explain_pictures(pictures, settings, model=model, num_classes=num_classes, device=device)


def explain_pictures(
    pictures: Sequence[str],
    settings: dict[str, Any],
    *,
    model: str | None = None,
    num_classes: int | None = None,
    device: str = "auto",
) -> int:
    from seewhy.engine.options import read_settings, with_classes

    chosen = read_settings(**settings)  # before torch is imported: a misspelt option answers at once
    from seewhy.cli.explain_images import run
    from seewhy.engine.inputs import with_fit
    from seewhy.models.loading import load_model

    sources = ["-" if picture == STDIN else picture for picture in pictures]
    name, labels, allow_code = with_classes(model, num_classes), chosen.labels, chosen.allow_code
    loaded = load_model(name, labels=labels, device=device, log=print_status, allow_code=allow_code)
    if chosen.fit is not None:
        loaded = with_fit(loaded, chosen.fit)  # before the notes, which speak of the model's own
    for note in () if chosen.quiet or chosen.as_json else loaded.notes:
        print_status(note)
    return run(loaded, sources, chosen)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; what a user can cause ends in one line, never in a traceback."""
    given = [STDIN if item == "-" else item for item in (sys.argv[1:] if arguments is None else arguments)]
    sys.exit(run_command(lambda: app(given, exit_on_error=False, print_error=False, result_action="return_value")))
