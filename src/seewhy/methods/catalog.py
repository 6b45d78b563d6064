"""The registry of methods: names, classes, files. Imports no torch.

To register a method, add a `MethodEntry` to its file below. A new file also needs a line in methods/__init__.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seewhy.errors import UnknownName

HINT = "List them: seewhy methods"
GROUPS = ("all", "fast")  # names for many methods at once
LINEAR = ("gradcam", "hirescam", "cam", "xgradcam")  # their map of a difference of scores is the difference of the maps


@dataclass(frozen=True)
class MethodEntry:
    """The name of a method and its class.

    Attributes:
        cls: The name of the class.
        name: The name that users type. Default: that of the class in lower case.
        aliases: Other accepted names.
        module: The module of the class. Filled in by the catalog.
    """

    cls: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    module: str = ""


@dataclass(frozen=True)
class MethodFile:
    """One file of this package: its heading in docs/methods.md, its group in the server's list, and its methods."""

    name: str
    heading: str
    group: str
    methods: tuple[MethodEntry, ...]


FILES = (
    MethodFile(
        "gradient", "Gradients and activations of one layer", "Gradients",
        (
            MethodEntry("GradCAM"),
            MethodEntry("HiResCAM"),
            MethodEntry("LayerCAM", aliases=("layer",)),
            MethodEntry("GradCAMPlusPlus", "gradcam++", ("gradcampp",)),
            MethodEntry("XGradCAM"),
            MethodEntry("GradCAMElementwise", aliases=("elementwise",)),
            MethodEntry("EigenGradCAM"),
            MethodEntry("SegEigenCAM"),
            MethodEntry("ShapleyCAM"),
        ),
    ),
    MethodFile(
        "wrappers", "Wrappers of another method", "Wrappers of a method",
        (MethodEntry("FinerCAM"), MethodEntry("GuidedGradCAM"), MethodEntry("EigenSmooth")),
    ),
    MethodFile(
        "activation", "Activations of one layer", "Activations",
        (
            MethodEntry("CAM"),
            MethodEntry("EigenCAM"),
            MethodEntry("KPCACAM"),
            MethodEntry("FEM"),
            MethodEntry("LaFAM", aliases=("mean",)),
            MethodEntry("RandomCAM", aliases=("random",)),
            MethodEntry("DeepFeatureFactorization", aliases=("dff",)),
        ),
    ),
    MethodFile(
        "masking", "Masking the input with a layer's channels", "Masking",
        (MethodEntry("ScoreCAM"), MethodEntry("SSCAM"), MethodEntry("ISCAM")),
    ),
    MethodFile(
        "mixtures", "Masking the input with mixtures of channels", "Masking",
        (MethodEntry("GroupCAM"), MethodEntry("OptiCAM")),
    ),
    MethodFile(
        "ablation", "Changing a layer's activations", "Masking",
        (MethodEntry("AblationCAM"), MethodEntry("ReciproCAM")),
    ),
    MethodFile(
        "pixels", "Changing the input", "Pixels",
        (MethodEntry("PolyCAM"), MethodEntry("Occlusion"), MethodEntry("RISE")),
    ),
    MethodFile(
        "network", "The full model", "Full network",
        (MethodEntry("FullGrad"), MethodEntry("RefineCAM"), MethodEntry("LayerCAMFusion", aliases=("fusion",))),
    ),
    MethodFile(
        "transformer", "Transformers", "Transformers",
        (
            MethodEntry("AttentionRollout", aliases=("rollout",)),
            MethodEntry("AttentionRelevance", aliases=("chefer",)),
            MethodEntry("LeGrad"),
            MethodEntry("GradECLIP"),
            MethodEntry("ViTReciproCAM"),
        ),
    ),
    MethodFile(
        "variants", "Another method on changed inputs", "Wrappers of a method",
        (
            MethodEntry("Smooth"),
            MethodEntry("SmoothGradCAMPlusPlus", "smoothgradcam++", ("smoothgradcampp",)),
            MethodEntry("Integrated"),
            MethodEntry("Augmented"),
        ),
    ),
    MethodFile("scales", "Several sizes of the input", "Wrappers of a method", (MethodEntry("CAMERAS"), MethodEntry("SESS"))),
)  # fmt: skip

METHODS = tuple(
    MethodEntry(entry.cls, entry.name or entry.cls.lower(), entry.aliases, f"seewhy.methods.{file.name}")
    for file in FILES
    for entry in file.methods
)
CLASSES = {entry.cls: entry.module for entry in METHODS}  # class name -> module
_NAMES = {entry.cls: entry.name for entry in METHODS}


def find_method(name: str) -> MethodEntry:
    """Return the entry of a method, in any letter case, with or without "-", "_" and spaces.

    Raises:
        UnknownName: No method has this name.

    >>> find_method("Grad-CAM++").cls
    'GradCAMPlusPlus'
    """
    key = re.sub(r"[-_\s]", "", name).casefold()
    for entry in METHODS:
        if key in (entry.name, entry.cls.casefold(), *entry.aliases):
            return entry
    raise UnknownName("method", name, [entry.name for entry in METHODS], hint=HINT)


def file_of(entry: MethodEntry) -> MethodFile:
    """Return the file that contains a method."""
    return next(file for file in FILES if entry.module.endswith(f".{file.name}"))


def name_of_class(cls: type) -> str:
    """Return the name of a method's class: that of the catalog, else the class name in lower case."""
    return _NAMES.get(cls.__name__, cls.__name__.lower())
