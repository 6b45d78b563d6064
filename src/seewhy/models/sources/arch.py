"""`Architecture`: an architecture of a library with its published weights, as a value."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from seewhy.errors import ModelError

if TYPE_CHECKING:
    from seewhy.images.preprocess import Preprocess
    from seewhy.models.weights import Log, Weights

HINT = "List them: seewhy models [PATTERN]"
DAMAGED = "delete it, and it will be downloaded again"
SEED = 0
RANDOM = f"RANDOM WEIGHTS (pretrained=false, seed {SEED}): the layers are real, the answers and maps mean nothing"


@dataclass(frozen=True)
class Architecture(ABC):
    """An architecture with its published weights. `classes` is how many classes those weights tell apart."""

    name: str

    @property
    @abstractmethod
    def uri(self) -> str: ...

    @property
    @abstractmethod
    def classes(self) -> int: ...

    @abstractmethod
    def preprocess(self) -> Preprocess: ...

    @abstractmethod
    def labels(self) -> tuple[str, ...] | None: ...

    @abstractmethod
    def fetch(self, log: Log) -> Weights:
        """The published weights, from this machine or downloaded."""

    @abstractmethod
    def count_classes(self, weights: Weights) -> int | None:
        """How many classes the classifier in `weights` has; None where there is none under its usual name."""

    @abstractmethod
    def make(self, weights: Weights, classes: int) -> nn.Module: ...

    @abstractmethod
    def blank(self, classes: int) -> nn.Module:
        """The network as its library builds it without weights."""

    def notes(self) -> list[str]:
        """What was decided about how pictures reach the network, in words."""
        return []

    def random(self, classes: int) -> nn.Module:
        """The network with random weights, the same at each call, in eval mode."""
        with seeded():
            return self.blank(classes).eval()

    def build(self, weights: Weights, classes: int, source: str) -> nn.Module:
        """The network with these weights, in eval mode. Raises `ModelError` (about `source`) where they do not fit."""
        try:
            return self.make(weights, classes).eval()
        except Exception as error:  # each library has its own way to fail on weights of another network
            raise ModelError(
                source,
                f"its weights do not fit {self.uri} with {classes} classes: {misfit(error)}; check the architecture "
                f"(?arch=...), the number of classes (num_classes=...) and that the names are those of its state dict",
            ) from None


@contextmanager
def seeded() -> Iterator[None]:
    """Random numbers of a fixed seed on the CPU; afterwards the caller's go on as if none had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        yield


def misfit(error: Exception) -> str:
    """What `load_state_dict` complains about, with a few names instead of all."""
    text = str(error)
    parts = []
    for kind in ("Missing", "Unexpected"):
        if match := re.search(rf"{kind} key\(s\) in state_dict: (.*)", text):
            names = re.findall(r'"([^"]+)"', match[1])
            parts.append(f"{kind.lower()} {a_few(names)}")
    shapes = r"size mismatch for (\S+): .*?torch\.Size\((.*?)\) from checkpoint.*?torch\.Size\((.*?)\)"
    if wrong := re.findall(shapes, text):
        parts.append("of another shape " + a_few([f"{name} ({given}, not {needed})" for name, given, needed in wrong]))
    return "; ".join(parts) or f"{type(error).__name__} ({text.splitlines()[0] if text else ''})"


def a_few(names: list[str], count: int = 3) -> str:
    """
    >>> a_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
