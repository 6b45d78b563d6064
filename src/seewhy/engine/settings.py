"""What the command line was told, checked. Imports no torch, so that a misspelt option answers at once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from seewhy.errors import UsageError
from seewhy.images.loading import MAX_PIXELS
from seewhy.methods.catalog import GROUPS, read_method
from seewhy.rendering import colors as color_tables
from seewhy.rendering.overlays import LONGEST, OverlayStyle, check_scale

CLASSIC = "classic"


@dataclass(frozen=True)
class Settings:
    """The settings of a run over pictures. `longest` is in pixels, None for the photo's own size; `memory` in MB.

    `features` channels of each layer are drawn instead of overlays, where it is not 0.
    """

    layers: tuple[str, ...] = ("every",)
    read_at: str = "convolution"
    grid: str | None = None
    methods: tuple[str, ...] = ()  # none: the one that fits the question
    targets: tuple[str, ...] = ()
    versus: tuple[str, ...] = ()
    multilabel: bool = False
    label: str | None = None
    top: int = 5
    fit: Literal["crop", "squash", "pad"] | None = None
    style: str = "fade"
    look: OverlayStyle = field(default_factory=OverlayStyle)
    longest: int | None = LONGEST
    out: Path = Path("cam")
    max_pixels: int = MAX_PIXELS
    as_json: bool = False
    quiet: bool = False
    memory: int = 256
    seed: int = 0
    features: int = 0
    labels: str | None = None
    allow_code: bool = False

    def command(self, picture: str, model: str) -> str:
        """The command that makes the maps of one picture again, ready to be pasted.

        >>> Settings(targets=("top2",), seed=3).command("my bus.jpg", "timm/resnet18")
        "seewhy 'my bus.jpg' --model timm/resnet18 --targets top2 --seed 3"
        >>> Settings(allow_code=True, multilabel=True).command("bus.jpg", "mine:make")
        'seewhy bus.jpg --model mine:make --multilabel --allow-code'
        """
        given: list[tuple[str, Any]] = [("model", None if model == "embedded" else model)]
        plain = Settings()
        for name in (
            "layers",
            "read_at",
            "grid",
            "methods",
            "targets",
            "versus",
            "multilabel",
            "label",
            "fit",
            "labels",
            "allow_code",
            "seed",
        ):
            given.append((name, getattr(self, name) if getattr(self, name) != getattr(plain, name) else None))
        if self.features:
            given.append(("channels", self.features))
        if self.style != plain.style:
            given.append(("style", self.style))
        given += [
            (name, getattr(self.look, name))
            for name in ("colors", "scale")
            if getattr(self.look, name) != getattr(plain.look, name)
        ]
        if picture.startswith("-") and picture != "-":
            picture = f"./{picture}"  # or it would be read as an option
        words = ["seewhy", *(["features"] if self.features else []), picture]
        for name, value in given:
            for one in value if isinstance(value, tuple) else [value]:
                if one is not None:
                    option = f"--{name.replace('_', '-')}"
                    words += [option] if one is True else [option, str(one)]
        return shlex.join(words)


def read_settings(
    *,
    colors: str | None = None,
    opacity: float | None = None,
    scale: str = "own",
    size: str = str(LONGEST),
    **plain: Any,
) -> Settings:
    """Settings from option values. Raises UsageError and its kinds for what makes no sense."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    settings = Settings(**values)
    for method in settings.methods:
        if method.lower() not in GROUPS:
            read_method(method)
    if settings.memory < 1:
        raise UsageError(f"--memory {settings.memory}: give at least 1 MB.")
    if settings.features < 0:
        raise UsageError(f"--channels {settings.features}: give at least 1.")
    if opacity is not None and not 0 <= opacity <= 1:
        raise UsageError(f"--opacity {opacity}: give a number from 0 (only the photo) to 1 (only colour).")
    if settings.top < 1:
        raise UsageError(f"--top {settings.top}: give at least 1.")
    if settings.style == CLASSIC and (colors, opacity) != (None, None):
        raise UsageError("--style classic is jet at 0.4, as in the tutorial; for other colours take --style blend.")
    if settings.style == CLASSIC and check_scale(scale) != "own":
        raise UsageError("--style classic scales each map by itself, as in the tutorial; take --style fade or blend.")
    color_tables.table(colors or color_tables.DEFAULT)
    default = 0.5 if settings.style == "blend" else 0.8
    look = OverlayStyle(settings.style, colors or color_tables.DEFAULT, default if opacity is None else opacity, scale)
    return replace(settings, look=look, longest=read_size(size))


def read_size(size: str) -> int | None:
    if size == "original":
        return None
    if not size.isdecimal() or int(size) < 16:
        raise UsageError(f"--size {size}: give the longest side in pixels (at least 16), or 'original'.")
    return int(size)


def with_classes(model: str | None, count: int | None) -> str | None:
    """A model's name with the number of its classes, as its name says it: "timm/resnet18?num_classes=7".

    >>> with_classes("weights.pth?arch=timm/resnet18", 7)
    'weights.pth?arch=timm/resnet18&num_classes=7'
    """
    if count is None:
        return model
    if model is None:
        raise UsageError(f"--num-classes {count}: the network in the package has 1000; give a --model.")
    if "num_classes=" in model:
        raise UsageError(f"--num-classes {count}: '{model}' says it too; leave one out.")
    return f"{model}{'&' if '?' in model else '?'}num_classes={count}"
