"""Select layer calls from a trace.

A layer specification such as `["layer4.*", -1]` becomes a `LayerSelection`, one `LayerSelector` per entry (`layer_specs` parses
it). Before the forward pass, each selector lists the modules that must be recorded, so that one pass serves all entries. After
it, each selector picks its calls from the trace: only then is it known which modules ran, how often, and with which grids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from seewhy.errors import LayerError
from seewhy.tracing.grid import TOKEN_LAYOUTS, Grid, GridHint, format_grid
from seewhy.tracing.torch_private import ADAPTIVE_POOLING, AVERAGE_POOLING, CONVOLUTION, MAX_POOLING
from seewhy.tracing.trace import LayerCall, RecordingRequest, Trace

CHANNELS_FIRST = (CONVOLUTION, MAX_POOLING, AVERAGE_POOLING, *ADAPTIVE_POOLING)
GROUP_NAMES = ("every", "convs", "blocks", "stages", "all")
LIST_LAYERS = "List them: seewhy.explain(model, inputs, layers='all').layers"  # the command line has a command for it
QUARTERS = 4  # stages of a network with a single grid size


class LayerSelector(ABC):
    """One entry of a layer specification."""

    @property
    @abstractmethod
    def modules(self) -> frozenset[str]:
        """The names of the modules that must be recorded."""

    @abstractmethod
    def select(self, trace: Trace) -> list[LayerCall]:
        """Return the selected calls in execution order. Raises LayerError if there is none."""


@dataclass(frozen=True)
class ModuleGroup(LayerSelector):
    """Every call of the modules in `names` that has a grid (`calls_with_grid`). `text` is the user's entry."""

    names: frozenset[str]
    text: str

    @property
    def modules(self) -> frozenset[str]:
        return self.names

    def select(self, trace: Trace) -> list[LayerCall]:
        calls = [call for call in calls_with_grid(trace.calls) if call.module in self.names]
        # Drop calls with an ambiguous grid: the group is useful without them. If all are ambiguous, keep them for the error.
        calls = [call for call in calls if not (call.grid and call.grid.alternatives)] or calls
        if not calls:
            others = [f"'{name}'" for name in ("suggested", "all") if name != self.text]
            advice = f" Use {' or '.join(others)}, or name layers." if self.text in GROUP_NAMES else ""
            list_layers = "" if self.text == "all" else f" {LIST_LAYERS}"
            raise LayerError(
                self.text,
                f"none of these layers has an output with at least 2 grid cells per axis.{advice}{list_layers}",
            )
        return calls


@dataclass(frozen=True)
class StageEnds(LayerSelector):
    """The last block of each stage.

    A stage is a sequence of blocks with one grid size. A network with a single grid size, as a ViT, is divided into quarters.
    """

    blocks: ModuleGroup

    @property
    def modules(self) -> frozenset[str]:
        return self.blocks.names

    def select(self, trace: Trace) -> list[LayerCall]:
        calls = self.blocks.select(trace)
        ends = [list(stage)[-1] for _, stage in groupby(calls, lambda call: str(call.grid))]
        if len(ends) == 1:
            parts = min(QUARTERS, len(calls))
            ends = [calls[len(calls) * part // parts - 1] for part in range(1, parts + 1)]
        return [call for call in trace.calls if call in ends]


@dataclass(frozen=True)
class LayerAtPosition(LayerSelector):
    """The call at position `index` of the group "every"; negative positions count from the end."""

    every: ModuleGroup
    index: int

    @property
    def modules(self) -> frozenset[str]:
        return self.every.names

    def select(self, trace: Trace) -> list[LayerCall]:
        calls = self.every.select(trace)
        if not -len(calls) <= self.index < len(calls):
            raise LayerError(str(self.index), f"there are {len(calls)} layers, 0 to {len(calls) - 1}. {LIST_LAYERS}")
        return [calls[self.index]]


class NotCalled(LayerError):
    """Raised when the model does not call a layer for this input."""


@dataclass(frozen=True)
class NamedLayer(LayerSelector):
    """One call of the module `name`: call `number` counted from 1, or its last call."""

    name: str
    number: int | None = None

    @property
    def modules(self) -> frozenset[str]:
        return frozenset({self.name})

    def select(self, trace: Trace) -> list[LayerCall]:
        count = trace.call_counts[self.name]
        if not count:
            raise NotCalled(
                self.name,
                "the model never calls it for this input, or calls it through a closure or weak reference. "
                f"Select a layer that it calls. {LIST_LAYERS}",
            )
        if self.number is not None and not 1 <= self.number <= count:
            raise LayerError(f"{self.name}#{self.number}", f"it was called {count} times, #1 to #{count}.")
        calls = [call for call in trace.calls if call.module == self.name and call.number == (self.number or count)]
        if not calls:
            raise LayerError(self.name, "its output contains no floating-point tensor.")
        if calls[0].grid is None:
            if reason := no_grid_reason(calls[0], trace):
                raise LayerError(self.name, reason)
            shape = tuple(calls[0].output.shape)
            is_flat = len(shape) == 3 < trace.inputs.dim()
            advice = " If these are tokens, pass their grid, for example grid='14x14+1'." if is_flat else ""
            raise LayerError(self.name, f"its output {shape} has no grid.{advice} {LIST_LAYERS}")
        return calls


@dataclass(frozen=True)
class LayerSelection:
    """A layer specification, resolved against the modules of a model."""

    selectors: tuple[LayerSelector, ...]

    @property
    def request(self) -> RecordingRequest:
        """What to record so that every selector can be applied."""
        has_names = any(isinstance(selector, NamedLayer) for selector in self.selectors)
        names = frozenset[str]().union(*(selector.modules for selector in self.selectors))
        return RecordingRequest(names, only_with_grid=not has_names)

    def matching_calls(self, trace: Trace) -> list[LayerCall]:
        """Return the selected calls in execution order, each once. Raises LayerError if the grid of one is ambiguous."""
        selected = {call for selector in self.selectors for call in selector.select(trace)}
        calls = [call for call in trace.calls if call in selected]
        for call in calls:
            check_unambiguous(call)
        return calls

    def with_layer(self, layer: str) -> LayerSelection:
        """Return this selection with one more layer, by its name in a trace ("relu#2")."""
        name, _, number = layer.partition("#")
        return LayerSelection((*self.selectors, NamedLayer(name, int(number) if number else None)))

    def names_explicitly(self, call: LayerCall) -> bool:
        """Return True if an entry is the name of this layer, not a group that contains it."""
        return any(isinstance(selector, NamedLayer) and selector.name == call.module for selector in self.selectors)


def calls_with_grid(calls: Sequence[LayerCall]) -> list[LayerCall]:
    """Return the calls whose grid has at least two cells on each axis.

    An axis of length 1 is allowed if no later call has more cells on it: networks for electrode recordings combine all
    electrodes early, and all their later maps are a single row. A gate that averages one axis is skipped.
    """
    result = []
    later_axes: dict[int, set[int]] = {}  # by number of axes: those with several cells in a later call
    for call in reversed(calls):
        if call.grid is None:
            continue
        long = {axis for axis, length in enumerate(call.grid.shape) if length >= 2}
        later = later_axes.setdefault(len(call.grid.shape), set())
        if long and long >= later:
            result.append(call)
        later |= long
    return result[::-1]


def no_grid_reason(call: LayerCall, trace: Trace) -> str:
    """Return why a call has no grid; "" if it has no likely one."""
    if call.refused_grid is not None:
        return wrong_order(call.refused_grid)
    if is_folded(call, trace) or is_slice(call, trace):
        return folded_reason(call, trace)
    shape, size = tuple(call.output.shape), tuple(trace.inputs.shape)
    if shape and len(shape) == len(size) and 0 < shape[0] < size[0]:
        return f"the model calls it with {shape[0]} of {size[0]} images: explain the images one at a time, x[:1]."
    if has_other_axes(call, trace):
        return (
            f"its output {shape} has {len(shape) - 2} axes of positions, and an input {size[1:]} has {len(size) - 2}: where in "
            "the input its cells lie is unknown, as where the model computes a spectrogram. Explain the part after that. "
            f"{LIST_LAYERS}"
        )
    return ""


def has_other_axes(call: LayerCall, trace: Trace) -> bool:
    """Return True for a convolution or pooling with more axes than the input."""
    return (
        issubclass(call.module_class, CHANNELS_FIRST) and call.grid is None and call.output.dim() > trace.inputs.dim()
    )


def wrong_order(grid: Grid) -> str:
    """Return why tokens or cells have no map although their number fits a grid."""
    if grid.layout not in TOKEN_LAYOUTS:
        return (
            f"its cells were read as a {grid} grid, but they do not change with those of the input: its axes are swapped or "
            f"reversed, or they are not positions. Select an earlier layer. {LIST_LAYERS}"
        )
    if grid.layout == "tokens_last":  # stated by the user, it would not be checked
        return (
            f"its last axis has the length of a {grid} grid, but not in that order, or is no token axis. {LIST_LAYERS}"
        )
    if len(grid.shape) == 1:
        return (
            f"its {grid} tokens are not in the order of the input, or they are not positions. Select an earlier layer, or, if "
            f"the axes of the input are not (batch, channels, positions), pass a model that takes them so. {LIST_LAYERS}"
        )
    return (
        f"its tokens were read as a {grid} grid, but they are not in that order, or not patches of the input. Select a layer "
        f"before they are shuffled, or, if you know that they are row by row, state it: "
        f"grid='{format_grid(grid.shape, grid.prefix)}'. {LIST_LAYERS}"
    )


def is_folded(call: LayerCall, trace: Trace) -> bool:
    """Return True if a layer has several rows per input: frames, patches, crops or windows in its batch axis."""
    shape, images = call.output.shape, len(trace.inputs)
    has_batch_second = len(shape) == 3 and shape[1] == images
    return (
        call.grid is None and len(shape) >= 3 and shape[0] > images and not shape[0] % images and not has_batch_second
    )


def is_slice(call: LayerCall, trace: Trace) -> bool:
    """Return True if a convolution or pooling has fewer axes than the input: it sees frames or slices."""
    is_grid = issubclass(call.module_class, CHANNELS_FIRST) and call.output.dim() >= 4 and call.grid is None
    return is_grid and len(call.output) == len(trace.inputs) and call.output.dim() < trace.inputs.dim()


def folded_calls(trace: Trace) -> list[LayerCall]:
    """Return the convolutions and poolings with several cells that see parts of the input in unknown places."""
    calls = [call for call in trace.calls if issubclass(call.module_class, CHANNELS_FIRST)]
    return [
        call for call in calls if (is_folded(call, trace) or is_slice(call, trace)) and max(call.output.shape[2:]) >= 2
    ]


def folded_reason(call: LayerCall, trace: Trace) -> str:
    """Return why a layer that sees parts of the input has no map."""
    shape, size, images = tuple(call.output.shape), tuple(trace.inputs.shape[1:]), len(trace.inputs)
    if is_slice(call, trace):
        return (
            f"the output {shape} of '{call.module}' has fewer axes than an input of shape {size}, and no single frame or slice "
            "is what it shows (are they combined, or used as channels?). Explain the part of the model that takes them "
            "combined, such as x.flatten(1, 2)."
        )
    return (
        f"the output {shape} of '{call.module}' has {shape[0] // images} rows for each input of shape {size} (frames, patches, "
        "crops or windows), and where in the input they are could not be observed. Explain the part of the model that takes "
        "one of them."
    )


def check_unambiguous(call: LayerCall) -> None:
    """Raise LayerError if the tokens of a call fit more than one grid."""
    if call.grid is not None and call.grid.alternatives:
        texts = [format_grid(grid.shape, grid.prefix) for grid in (call.grid, *call.grid.alternatives)]
        raise LayerError(
            call.name,
            f"its {call.grid.cell_count + call.grid.prefix} tokens fit more than one grid: {' or '.join(texts)} (cells + "
            f"tokens before them); choose one with grid='{texts[0]}' or --grid {texts[0]}",
        )


def check_hint_used(hint: GridHint | None, calls: Sequence[LayerCall]) -> None:
    """Raise LayerError if the user's grid does not fit any of the layers."""
    grids = [call.grid for call in calls if call.grid is not None]
    if hint is None or not grids or any(grid.source == hint.source for grid in grids):
        return
    inferred = format_grid(grids[-1].shape, grids[-1].prefix)
    raise LayerError(
        calls[-1].name,
        f"grid {hint} does not fit its output {tuple(calls[-1].output.shape)}, nor that of another selected layer; omit "
        f"the grid (inferred: {inferred}), or pass one with the number of tokens before it, such as '14x14+1'.",
    )
