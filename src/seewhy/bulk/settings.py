"""Settings of a bulk job: what determines its rows (`BulkSettings`), and how it runs (`Execution`). Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from seewhy.engine.options import Fast, Fit, Options, ReadAt, option
from seewhy.errors import OptionError, UnknownName, UsageError
from seewhy.images.loading import MAX_PIXELS
from seewhy.methods.catalog import GROUPS
from seewhy.methods.method_text import parse_method

Store = Literal["uint8", "float16"]
EngineName = Literal["local", "ray"]
Shard = tuple[int, int]  # i of n, from 0

STORES, ENGINES = get_args(Store), get_args(EngineName)
PREDICTED, LABEL, SUGGESTED = "predicted", "label", "suggested"
PART_SIZE = 256  # images
LOCATED_TARGET = re.compile(r"\s*(point|box)\S*:.*@", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class BulkSettings:
    """Everything the rows of a job depend on, apart from the model and the images. A resumed job must have the same settings.

    An empty `methods` selects the default for the target. `store` is the number format of maps. `check`: each map is checked
    (see `seewhy.trust.check`).
    """

    methods: tuple[str, ...] = ()
    layers: tuple[str, ...] = (SUGGESTED,)
    targets: tuple[str, ...] = (PREDICTED,)
    versus: tuple[str, ...] = ()
    read_at: ReadAt = "convolution"
    grid: str | None = None
    multilabel: bool = False
    fit: Fit | None = None
    seed: int = 0
    fast: Fast = "exact"
    store: Store = "uint8"
    max_pixels: int = MAX_PIXELS
    check: bool = False

    def __post_init__(self) -> None:
        if self.store not in STORES:
            raise UnknownName("store", self.store, STORES, hint="Maps are stored as uint8 or float16.")
        for method in self.methods:
            if method.strip().lower() in GROUPS:
                raise OptionError(
                    "methods",
                    method,
                    '"all" and "fast" are not allowed in bulk jobs because every image must produce the same rows. List the '
                    "methods by name.",
                )
            parse_method(method)
        if not self.targets:
            raise UsageError("the list of targets is empty; omit it for the predicted class.")
        for target in self.targets:
            if LOCATED_TARGET.match(target):
                raise OptionError("targets", target, "a position is valid for one image only. Pass classes.")


@dataclass(frozen=True, eq=False, kw_only=True)
class BulkOptions(Options):
    """The options of `explain` as texts, and those that only bulk jobs have."""

    layers: str | Sequence[str] | None = option(
        None,
        '"suggested" (default), "every" convolution, names, globs ("blocks.5.*"). All layers of a network take about 100 '
        "times the disk space of one.",
        "names",
        short="-l",
    )
    methods: str | Sequence[str] | None = option(
        None,
        "Names from `seewhy methods`, with settings. Default: gradcam; hirescam for targets that have a location.",
        "names",
    )
    targets: str | Sequence[str] | None = option(
        None,
        '"predicted" (default), "label" (the class that each image is labeled with), topK ("top3"), classes by index or name.',
        "targets",
        short="-t",
    )
    versus: str | Sequence[str] | None = option(None, "Explain why the targets and not these classes.", "targets")
    grid: str | None = option(None, 'Grid of the tokens where it cannot be inferred: "14x14".')
    store: Store = option(
        "uint8", "Format of maps: uint8 with a scale per map, or float16 (twice the size).", choices=STORES
    )
    max_pixels: int = option(MAX_PIXELS, "Reject images with more pixels before decoding them.", "number")
    check: bool = option(
        False,
        "Check each map: cover parts of the image and compare the effect with the map. 28 more forward passes for each image, "
        "which its layers, methods and targets share.",
        "switch",
    )

    @property
    def settings(self) -> BulkSettings:
        """The validated settings. Raises UsageError for values that bulk jobs do not support."""
        return BulkSettings(
            methods=as_tuple(self.methods), layers=as_tuple(self.layers) or (SUGGESTED,),
            targets=(PREDICTED,) if self.targets is None else as_tuple(self.targets), versus=as_tuple(self.versus),
            read_at=self.read_at, grid=self.grid, multilabel=self.multilabel, fit=self.fit, seed=self.seed,
            fast=self.fast or "exact", store=self.store, max_pixels=self.max_pixels, check=self.check,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a job runs. The rows do not depend on it, except for the last digits of maps, which depend on the batch size."""

    engine: EngineName = option(
        "local",
        '"local" (this process), or "ray" (a Ray cluster; RAY_ADDRESS selects an existing one).',
        choices=ENGINES,
    )
    batch_size: int | None = option(
        None, "Images per forward pass. Default: tuned at the first start, then kept.", "number"
    )
    part_size: int = option(PART_SIZE, "Images per part file. An interrupted part is computed again.", "number")
    workers: int | None = option(
        None,
        "Processes that decode images (on Ray: per actor); 0 decodes in a thread. Default: half of the CPUs, at most 16.",
        "number",
    )
    actors: int | None = option(None, "Model copies on Ray. Default: one per GPU, or one per CPU.", "number")
    shard: str = option("0/1", "i/n: compute every n-th part, starting at i. For torchrun, Slurm and Kubernetes.")
    retry_failed: bool = option(False, "Compute parts with failed images again.", "switch")
    memory: float = 256  # megabytes for one batch of changed images, in methods that run extra passes

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UnknownName("engine", self.engine, ENGINES)
        if self.engine == "ray" and find_spec("ray") is None:
            raise OptionError("engine", "ray", "the package ray is not installed: pip install 'seewhy[bulk,ray]'")
        for name, minimum in (("batch_size", 1), ("part_size", 1), ("workers", 0), ("actors", 1)):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise OptionError(name, value, f"give at least {minimum}.")
        parse_shard(self.shard)


def parse_shard(text: str) -> Shard:
    """Parse a shard: "0/4" to "3/4".

    >>> parse_shard("3/4")
    (3, 4)
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise OptionError("shard", text, "give i/n with i from 0 to n-1: 0/4, 1/4, 2/4 and 3/4.")
    return int(match[1]), int(match[2])


def as_tuple(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one name, several names or None as a tuple.

    >>> as_tuple("gradcam"), as_tuple(["a", "b"]), as_tuple(None)
    (('gradcam',), ('a', 'b'), ())
    """
    return (names,) if isinstance(names, str) else tuple(names or ())
