"""The settings of an explanation: one typed, validated definition that every entry point shares.

`seewhy.explain`, bulk jobs, the local app and the command line all build an `Options`. A field holds its type, its default,
its help text and its short flag, so command-line flags are generated from the fields and each option is described once.
Imports no torch: a misspelled option must fail before torch is loaded, which takes seconds.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from seewhy.errors import OptionError, UnknownName, UsageError
from seewhy.methods.catalog import GROUPS
from seewhy.methods.method_text import parse_method

if TYPE_CHECKING:
    from seewhy.methods.parsing import MethodSpec
    from seewhy.targets.parsing import TargetSpec
    from seewhy.tracing.grid import GridSpec
    from seewhy.tracing.layer_specs import LayerSpec

ReadAt = Literal["convolution", "activation"]
Fit = Literal["crop", "squash", "pad"]
Scores = Literal["logits", "probabilities"]
Fast = Literal["off", "exact", "bf16"]
Kind = Literal["names", "targets", "text", "number", "decimal", "switch", "path"]


@dataclass(frozen=True)
class Flag:
    """How a field appears on the command line.

    `kind` is how its value is read: "names" and "targets" are lists split at commas, "switch" is a flag without value.
    `choices` limits a text to some values. `name` differs from the field's name for a few flags.
    """

    help: str
    kind: Kind
    short: str = ""
    choices: tuple[str, ...] = ()
    name: str = ""


def option(
    default: Any, help: str, kind: Kind = "text", *, short: str = "", choices: tuple[str, ...] = (), name: str = ""
) -> Any:
    """Return a dataclass field with a command-line flag."""
    return field(default=default, metadata={"flag": Flag(help, kind, short, choices, name)})


def flags(options: type) -> Iterator[tuple[str, Any, Flag]]:
    """Yield name, default and flag of each field of an options class that has a flag."""
    for item in dataclasses.fields(options):
        if "flag" in item.metadata:
            yield item.name, item.default, item.metadata["flag"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """What to explain, and how. `None` selects the default described in the help text of the field.

    Raises UsageError (or UnknownName, with close matches) for a value that is never valid. What depends on the model, such
    as layer and class names, is checked when the model is known.

    >>> Options(methods="scorecam", memory=64).memory
    64
    >>> Options(fit="stretch")
    Traceback (most recent call last):
    seewhy.errors.UnknownName: no fit 'stretch'. Use crop or squash or pad.
    """

    layers: LayerSpec = option(
        None,
        '"every" convolution, "suggested", "branches" (it and parallel ones), "convs", "blocks", "stages", "all", names, globs '
        '("blocks.5.*"), module classes ("Conv2d"), positions ("-1"). Default: "every"; for groups of methods and bulk jobs '
        '"suggested".',
        "names",
        short="-l",
    )
    read_at: ReadAt = option(
        "convolution",
        'Read convolutions at their own output, or at the output of the "activation" after them.',
        choices=get_args(ReadAt),
    )
    grid: GridSpec = option(
        None, 'Grid of the tokens where it cannot be inferred: "14x14", or "14x14+1" with one token before the grid.'
    )
    methods: MethodSpec = option(
        None,
        'Names from `seewhy methods`, with settings: "gradcam,scorecam(batch_size=64),smooth(layercam)". Several methods are '
        'compared. "all" runs every method that fits the model, "fast" those without extra forward passes, both at the '
        "suggested layer. Default: gradcam; hirescam for targets that have a location.",
        "names",
    )
    targets: TargetSpec = option(
        None,
        'Classes by index or name, or topK ("top3"). Default: the predicted class. Also "region:bus", "point:bus@120,200", '
        '"box:person@10,20,110,220" (pixels of the photo), "probability:bus", "logprobability:bus", "output:0", "text:a red '
        'bus" and "like:other.jpg", for models with such outputs; use a separate --targets for each of these.',
        "targets",
        short="-t",
    )
    versus: TargetSpec = option(
        None,
        "Explain why the targets and not these classes: indices or names (--targets 654 --versus 829).",
        "targets",
    )
    scores: Scores | None = option(
        None,
        "What the class scores of the model are, if that is not recognized: logits or probabilities.",
        choices=get_args(Scores),
    )
    multilabel: bool = option(False, "Classes are not exclusive: each has its own (sigmoid) probability.", "switch")
    fit: Fit | None = option(
        None,
        'How an image is fitted to the input size: "crop" (the model\'s own), "squash" (entire image, distorted), "pad" '
        "(entire image, borders added).",
        choices=get_args(Fit),
    )
    seed: int = option(0, "Random seed for methods that draw random numbers and whose own seed is not set.", "number")
    memory: float = option(
        256, "Megabytes for one batch of changed images, in methods that run extra passes.", "decimal"
    )
    fast: Fast | None = option(
        None,
        'Prepare the model once: "exact" gives the same maps up to rounding, "bf16" also computes gradients in bfloat16, '
        '"off" does neither. Default: exact for several images, bulk jobs and the local app.',
        choices=get_args(Fast),
    )
    channels: int = option(0, "Number of strongest channels per layer.", "number")
    include_suggested: bool = False  # add the suggested layer to the selected ones
    other_classes: int = 0  # without targets: also explain this many of the next most likely classes

    def __post_init__(self) -> None:
        for name in self.method_names:
            if name not in GROUPS:
                parse_method(name)
        for name, kind in (("read_at", ReadAt), ("fit", Fit), ("scores", Scores), ("fast", Fast)):
            value, choices = getattr(self, name), get_args(kind)
            if value is not None and value not in choices:
                raise UnknownName(name, str(value), choices, hint=f"Use {' or '.join(choices)}.")
        if not is_number(self.memory) or not 0 < self.memory < math.inf:
            raise OptionError("memory", self.memory, "give a number of megabytes above 0, such as 256.")
        if not is_number(self.channels) or self.channels < 0:
            raise OptionError("channels", self.channels, "give a number, at least 1.")

    @property
    def selects_group(self) -> bool:
        """Return True if `methods` contains a group ("all", "fast"): methods that do not fit are then skipped."""
        return any(name in GROUPS for name in self.method_names)

    @property
    def method_names(self) -> list[str]:
        """The methods that are given as text; group names in lower case."""
        methods = self.methods if isinstance(self.methods, (list, tuple)) else [self.methods]
        names = [method.strip() for method in methods if isinstance(method, str)]
        return [name.lower() if name.lower() in GROUPS else name for name in names]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model to load, and how. `None` loads the embedded network."""

    model: str | None = option(
        None,
        "torchvision/NAME, timm/NAME, NAME, hf/ORG/NAME, open_clip/NAME@WEIGHTS, local-dir:FOLDER, "
        "weights.safetensors?arch=timm/NAME, network.onnx or network.pt2. Default: the embedded network.",
        short="-m",
    )
    labels: str | None = option(
        None, 'Class names: a text file with one name per line, or "cat,dog". For CLIP they are the classes.'
    )
    num_classes: int | None = option(
        None, "Number of classes of the model, if neither its name nor its weights define it.", "number"
    )
    allow_code: bool = option(
        False,
        "Allow --model module:function, which runs code of that module, and .pt2 files, which can run code.",
        "switch",
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps.")

    @property
    def uri(self) -> str | None:
        """The model's URI, with its number of classes: "timm/resnet18?num_classes=7".

        >>> ModelOptions(model="weights.pth?arch=timm/resnet18", num_classes=7).uri
        'weights.pth?arch=timm/resnet18&num_classes=7'
        """
        if self.num_classes is None:
            return self.model
        if self.model is None:
            raise UsageError(
                f"--num-classes {self.num_classes}: the embedded network has 1000 classes; give a --model."
            )
        if "num_classes=" in self.model:
            raise UsageError(
                f"--num-classes {self.num_classes}: '{self.model}' sets num_classes as well; remove one of the two."
            )
        return f"{self.model}{'&' if '?' in self.model else '?'}num_classes={self.num_classes}"


def is_number(value: object) -> bool:
    return isinstance(value, Real)


def as_flags(options: Any, *, skip: Sequence[str] = ()) -> list[str]:
    """Return the command-line flags that recreate `options`; fields at their defaults are omitted.

    >>> as_flags(Options(targets=("top2",), seed=3, multilabel=True))
    ['--targets', 'top2', '--multilabel', '--seed', '3']
    """
    words: list[str] = []
    for name, default, flag in flags(type(options)):
        value = getattr(options, name)
        if name in skip or value is None or value == default:
            continue
        text = flag_name(name, flag)
        for item in value if isinstance(value, tuple) else [value]:
            words += [text] if item is True else [text, str(item)]
    return words


def flag_name(name: str, flag: Flag) -> str:
    """Return the long flag of a field: "--read-at"."""
    return f"--{(flag.name or name).replace('_', '-')}"


def command_for(image: str, model: str, *flag_lists: Sequence[str], subcommand: str = "") -> str:
    """Return the command that explains one image again, ready to be pasted into a shell.

    >>> command_for("my bus.jpg", "timm/resnet18", ["--seed", "3"])
    "seewhy 'my bus.jpg' --model timm/resnet18 --seed 3"
    """
    # A file name that starts with a dash would be read as an option.
    path = f"./{image}" if image.startswith("-") and image != "-" else image
    words = ["seewhy", *([subcommand] if subcommand else []), path]
    words += [] if model == "embedded" else ["--model", model]
    return " ".join(quote_word(word) for word in [*words, *(word for flags_ in flag_lists for word in flags_)])


def quote_word(word: str) -> str:
    """Quote a word for a shell on one printable line. bash, zsh and ksh read bytes that are not printable in $'...'.

    >>> quote_word("my bus.jpg"), quote_word("caf\\udce9.jpg")
    ("'my bus.jpg'", "$'caf\\\\xe9.jpg'")
    """
    if word.isprintable():
        return shlex.quote(word)
    characters = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word)
    )
    return f"$'{''.join(characters)}'"
