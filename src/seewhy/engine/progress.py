"""Progress of methods that run extra passes: an estimate of the rows they need, and a counter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod

from seewhy.explanation.components import LayerInfo
from seewhy.methods.base import AnyMethod, NetworkMethod, VariantMethod

Progress = Callable[[int, int], None]  # rows done, rows in total


def estimate_rows(methods: Mapping[str, AnyMethod], layers: Iterable[LayerInfo], images: int) -> int:
    """Estimate how many rows the methods send through the model in addition to the shared pass.

    `images` is the number of images times the number of targets.
    """
    sizes = [(layer.channels, prod(layer.grid)) for layer in layers]
    last = sizes[-1] if sizes else (0, 0)
    total = 0
    for method in methods.values():
        runs_once = isinstance(method, (VariantMethod, NetworkMethod))  # all layers share its passes
        total += sum(method.forwards(channels, cells) for channels, cells in ([last] if runs_once else sizes))
    return total * images


def counter(progress: Progress, total: int) -> Callable[[int], None]:
    """Return a function that adds up rows and reports them to `progress`."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    progress(0, total)
    return count
