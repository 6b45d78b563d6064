"""The grids of the layers in one forward pass, inferred from the convolutions and poolings that ran before."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.places.parts import Parts, PartsOfModel
from seewhy.places.region import FieldOfView
from seewhy.tracing.grid import Grid, GridHint
from seewhy.tracing.grid_inference import find_grid, without_unit_axes
from seewhy.tracing.token_cache import CallKey
from seewhy.tracing.token_hints import token_grid_hint
from seewhy.tracing.torch_private import AVERAGE_POOLING, CONVOLUTION, MAX_POOLING

GRID_SOURCES = (CONVOLUTION, MAX_POOLING, AVERAGE_POOLING)  # the grids of later layers are inferred from theirs

OutputKey = tuple[str, int, torch.Size]  # the module, the number of its call, and the shape of its output


class GridTracker:
    """Infers the grids of the layers in one forward pass.

    Attributes:
        needs_sources: Whether `record` must be called for each output of a module in `GRID_SOURCES`.
        has_unknown_parts: Whether a convolution had several rows per input in unknown places.
        sources: Convolutions and poolings by their grid.
        found: The grids of all outputs so far.
    """

    needs_sources = True

    def __init__(
        self,
        model: nn.Module,
        input_shape: torch.Size,
        user_hint: GridHint | None,
        parts: PartsOfModel,
        view: FieldOfView,
    ) -> None:
        self.model = weakref.ref(model)  # the hooks of the model hold this object, so a reference would be a cycle
        self.input_shape, self.user_hint = input_shape, user_hint
        self.parts, self.view = parts, view
        self.has_unknown_parts = False
        # Of convolutions and poolings, latest first, by the parts that they see; None: the entire input.
        self.grids: dict[Parts | None, list[tuple[int, ...]]] = {}
        self.source_calls: Counter[int] = Counter()  # by the id of the module: a reference would be a cycle
        self.channels = 0  # of the last convolution or pooling
        self.sources: dict[tuple[int, ...], list[CallKey]] = {}
        self.found: dict[OutputKey, Grid | None] = {}
        self._hints: dict[tuple[int, ...], list[GridHint]] = {}

    def record(self, name: str, module: nn.Module, output: Any) -> None:
        """Record the output of a convolution or pooling."""
        if not isinstance(output, Tensor):
            return
        self.source_calls[id(module)] += 1
        output, _ = without_unit_axes(output, len(self.input_shape))
        parts, shape = self.part_of(name, output, self.source_calls[id(module)])
        is_looped = output.dim() < len(self.input_shape) and not self.grids
        is_looped |= self.source_calls[id(module)] > 1  # perhaps on tiles, crops or mirrored copies
        if self.shows_channels(output):
            return
        self.channels = output.shape[1] if output.dim() > 1 else 0
        self.has_unknown_parts |= parts is None and (self.part_count(output) > 1 or is_looped)
        if self.spans_input(output, shape):
            grid, grids = tuple(output.shape[2:]), self.grids.setdefault(parts, [])
            self.sources.setdefault(grid, []).append((name, self.source_calls[id(module)]))
            if grid not in grids[:1]:
                grids.insert(0, grid)

    def grid_of(self, name: str, output: Tensor, is_channels_first: bool, number: int = 0) -> Grid | None:
        """Return the grid of the output of a layer, in call `number` of it."""
        grid = self.found[name, number, output.shape] = self.infer_grid(name, output, is_channels_first, number)
        return grid

    def infer_grid(self, name: str, output: Tensor, is_channels_first: bool, number: int) -> Grid | None:
        """Return the grid of an output, from its shape and the grids before it."""
        output, unit_axes = without_unit_axes(output, len(self.input_shape))
        if self.shows_channels(output):
            return None
        parts, shape = self.part_of(name, output, number)
        if is_channels_first:
            grid = Grid(tuple(output.shape[2:])) if self.spans_input(output, shape) else None
        else:
            grid = find_grid(output, shape, self.grids.get(parts, []), self.hints(shape[2:]), self.channels)
        if grid is not None and unit_axes:
            return replace(grid, unit_axes=unit_axes) if grid.layout == "channels_first" else None
        region = self.view.of(name).region if parts is None else None
        return grid if grid is None or (parts is None and region is None) else replace(grid, parts=parts, region=region)

    def shows_channels(self, output: Tensor) -> bool:
        """Return True if the positions of a 1-D network's output are the channels of the layer before, as in ECA."""
        known = {grid for grids in self.grids.values() for grid in grids}
        is_line = len(self.input_shape) == output.dim() == 3 and output.shape[:2] == (self.input_shape[0], 1)
        return is_line and output.shape[2] == self.channels and (self.channels,) not in known

    def part_count(self, output: Tensor) -> int:
        """Return the number of rows per input; 1 if that is not an integer."""
        count, rest = divmod(len(output), self.input_shape[0]) if output.dim() else (1, 0)
        return 1 if rest or not count else count

    def part_of(self, name: str, output: Tensor, number: int) -> tuple[Parts | None, Sequence[int]]:
        """Return the parts that the rows of an output are, and the shape (rows, C, *size) of what the network sees of them.

        `number` counts the calls of the module from 1.
        """
        count, by_call = self.part_count(output), self.parts.by_call
        parts = self.parts.by_count.get(count)
        called = self.parts.calls.get((name, number))
        if count == 1 and called is not None and output.dim() == len(by_call[called].size) + 2:
            parts = by_call[called]
        if parts is None:
            view = self.view.of(name)
            return None, self.input_shape if view.region is None else (*self.input_shape[:2], *view.size)
        return parts, (len(output), self.input_shape[1], *parts.size)

    def spans_input(self, output: Tensor, seen_shape: Sequence[int]) -> bool:
        """Return True if `output` has the rank and the rows of the input, or of its parts.

        A convolution along channels (as in ECA) has a different rank.
        """
        return output.dim() == len(seen_shape) and output.shape[0] == seen_shape[0]

    def hints(self, size: Sequence[int]) -> list[GridHint]:
        """The known grids of the tokens of an input of `size`: from the user, then from the model."""
        if tuple(size) not in self._hints:
            model = self.model()
            model_hint = None if model is None else token_grid_hint(model.modules(), size)
            self._hints[tuple(size)] = [hint for hint in (self.user_hint, model_hint) if hint is not None]
        return self._hints[tuple(size)]
