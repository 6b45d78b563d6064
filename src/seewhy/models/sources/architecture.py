"""`Architecture`: a network of a library with its published weights, as a value."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError, shorten_error
from seewhy.images.preprocess import Preprocess
from seewhy.models.downloads import Log
from seewhy.models.weights import Weights, show_names
from seewhy.tensors.random_state import preserve_rng, seed_cpu

HINT = "List them: seewhy models"
CORRUPT_HINT = "delete it to download it again"
SEED = 0
WRONG_SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\) from checkpoint.*?torch\.Size\((.*?)\)")
RANDOM_NOTE = f"RANDOM WEIGHTS (pretrained=false, seed {SEED}): predictions and maps are meaningless"


@dataclass(frozen=True)
class Architecture(ABC):
    """A network of torchvision or timm and one set of its published weights."""

    name: str

    @property
    @abstractmethod
    def uri(self) -> str: ...

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """The number of classes of the published weights."""

    @abstractmethod
    def preprocess(self) -> Preprocess: ...

    @abstractmethod
    def labels(self) -> tuple[str, ...] | None: ...

    @abstractmethod
    def load_weights(self, log: Log) -> Weights:
        """Return the published weights, from the cache or downloaded."""

    @abstractmethod
    def count_classes(self, weights: Weights) -> int | None:
        """Return the number of classes of the classifier in `weights`, or None if no classifier is recognized."""

    @abstractmethod
    def build_with_weights(self, weights: Weights, num_classes: int) -> nn.Module: ...

    @abstractmethod
    def build_without_weights(self, num_classes: int) -> nn.Module: ...

    def notes(self) -> list[str]:
        """Return notes on how the preprocessing differs from the library's own."""
        return []

    def build_random(self, num_classes: int) -> nn.Module:
        """Build the network in eval mode with random weights, the same on every call."""
        with fixed_seed():
            return self.build_without_weights(num_classes).eval()

    def build(self, weights: Weights, num_classes: int, source: str) -> nn.Module:
        """Build the network in eval mode with `weights`. Raises `ModelError` for `source` if they do not fit."""
        try:
            module = self.build_with_weights(weights, num_classes).eval()
        except Exception as error:  # each library raises different types for weights of another network
            if head := describe_head_mismatch(error, num_classes):
                raise ModelError(source, head) from None
            raise ModelError(
                source,
                f"its weights do not fit {self.uri} with {num_classes} classes: {describe_mismatch(error)}; check the "
                "architecture (?arch=...) and the names in the file",
            ) from None
        check_types(module, weights, source)
        return module


def first_length(tensor: Tensor) -> int | None:
    """Return the number of classes of a classifier's weight; None for a scalar, which is no such weight."""
    return tensor.shape[0] if tensor.dim() else None


def check_types(module: nn.Module, weights: Weights, source: str) -> None:
    """Raise ModelError if a file has integers, such as quantized values, where the network has real numbers.

    PyTorch would convert them without their scale.
    """
    for name, own in module.state_dict().items():
        stored = weights.get(name)
        if (
            stored is not None
            and isinstance(own, Tensor)
            and own.is_floating_point()
            and not stored.is_floating_point()
        ):
            raise ModelError(
                source,
                f"its tensor {show_names([name])} is {stored.dtype}, not {own.dtype}; save the weights unquantized",
            )


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Use a fixed seed on the CPU, and restore the caller's random state afterwards."""
    with preserve_rng(torch.device("cpu")):
        seed_cpu(SEED)
        yield


def describe_head_mismatch(error: Exception, num_classes: int) -> str:
    """Return a message if only the classifier does not fit, because it has another number of classes; otherwise ""."""
    shapes = [
        (name, stored.strip("[]").split(", "), expected) for name, stored, expected in WRONG_SHAPES.findall(str(error))
    ]
    is_head = shapes and not re.search(r"(Missing|Unexpected) key\(s\)", str(error))
    if not is_head or any(
        f"[{', '.join([str(num_classes), *stored[1:]])}]" != expected for _, stored, expected in shapes
    ):
        return ""
    name, (count, *_), _ = shapes[0]
    return (
        f"its classifier {show_names([name])} has {count} classes, not {num_classes}; set the number of classes to {count}, or "
        "omit it"
    )


def describe_mismatch(error: Exception) -> str:
    """Summarize an error of `load_state_dict` with one name of each kind instead of all."""
    text = str(error)
    parts = []
    for kind in ("Missing", "Unexpected"):
        if match := re.search(rf"{kind} key\(s\) in state_dict: (.*)", text):
            names = re.findall(r'"([^"]+)"', match[1])
            parts.append(f"{kind.lower()} {join_first(names, 1)}")
    if shapes := WRONG_SHAPES.findall(text):
        examples = [f"{name} ({stored}, not {expected})" for name, stored, expected in shapes]
        parts.append(f"{len(shapes)} of another shape" if parts else f"wrong shape {join_first(examples, 1)}")
    return "; ".join(parts) or f"{type(error).__name__} ({shorten_error(error) if text else ''})"


def join_first(names: list[str], count: int = 3) -> str:
    """
    >>> join_first(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = [show_names([name]) for name in names[:count]]
    return ", ".join(shown) + (f" and {len(names) - count} more" if len(names) > count else "")
