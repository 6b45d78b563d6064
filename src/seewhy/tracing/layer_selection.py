"""Which layers: from what a user writes to modules to watch, and from a trace to the calls that were meant."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from seewhy.errors import LayerError, UnknownName, UsageError
from seewhy.tracing.grid import GridHint, format_grid
from seewhy.tracing.trace import LayerCall, RecordingRequest, Trace
from seewhy.tracing.twin import named_modules, unwrapped

OneLayer = str | int | nn.Module | type[nn.Module]
LayerSpec = OneLayer | Sequence[OneLayer] | None  # what `layers=` accepts
LIST_THEM = "List them: seewhy layers MODEL"
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
QUARTERS = 4
WORDS = ("every", "convs", "blocks", "stages", "all")
FEW = 3  # with fewer convolutions than this, the blocks tell more


class Item(ABC):
    """One entry of a layer specification."""

    @property
    @abstractmethod
    def watched(self) -> frozenset[str]:
        """The modules that must be watched."""

    @abstractmethod
    def calls(self, trace: Trace) -> list[LayerCall]:
        """The calls meant, in execution order; LayerError where there is none."""


@dataclass(frozen=True)
class Modules(Item):
    """Every call with a grid of at least 2 cells an axis, of the modules named: "every", globs, types."""

    names: frozenset[str]
    given: str

    @property
    def watched(self) -> frozenset[str]:
        return self.names

    def calls(self, trace: Trace) -> list[LayerCall]:
        calls = [call for call in trace.calls if call.module in self.names and has_grid(call)]
        calls = [
            call for call in calls if not (call.grid and call.grid.alternatives)
        ] or calls  # one odd output costs no group
        if not calls:
            others = " Take 'suggested' or 'all', or name layers." if self.given in WORDS else ""
            raise LayerError(
                self.given, f"none of these layers gives a grid of at least 2 cells an axis.{others} {LIST_THEM}"
            )
        return calls


@dataclass(frozen=True)
class Stages(Item):
    """Of `blocks` the last of each stage: a stage is a stretch of the forward with one grid size, or a quarter of the blocks
    of a network that keeps to one size, as a ViT does."""

    blocks: Modules

    @property
    def watched(self) -> frozenset[str]:
        return self.blocks.names

    def calls(self, trace: Trace) -> list[LayerCall]:
        calls = self.blocks.calls(trace)
        last = [list(stretch)[-1] for _, stretch in groupby(calls, lambda call: str(call.grid))]
        if len(last) == 1:
            parts = min(QUARTERS, len(calls))
            last = [calls[len(calls) * part // parts - 1] for part in range(1, parts + 1)]
        return [call for call in trace.calls if call in last]


@dataclass(frozen=True)
class Position(Item):
    """One of the layers that "every" gives, by its place; negative counts from the end."""

    every: Modules
    index: int

    @property
    def watched(self) -> frozenset[str]:
        return self.every.names

    def calls(self, trace: Trace) -> list[LayerCall]:
        calls = self.every.calls(trace)
        if not -len(calls) <= self.index < len(calls):
            raise LayerError(str(self.index), f"there are {len(calls)} layers, 0 to {len(calls) - 1}. {LIST_THEM}")
        return [calls[self.index]]


@dataclass(frozen=True)
class Named(Item):
    """One layer by its name; its last call, or the one after "#" where the module is called more than once."""

    name: str
    index: int | None = None

    @property
    def watched(self) -> frozenset[str]:
        return frozenset({self.name})

    def calls(self, trace: Trace) -> list[LayerCall]:
        times = trace.call_counts[self.name]
        if not times:
            raise LayerError(self.name, "the model never calls it on this input, or only through a hidden reference.")
        if self.index is not None and not 1 <= self.index <= times:
            raise LayerError(f"{self.name}#{self.index}", f"it was called {times} times, #1 to #{times}.")
        calls = [call for call in trace.calls if call.module == self.name and call.number == (self.index or times)]
        if not calls:
            raise LayerError(self.name, "its output holds no tensor of floating-point numbers.")
        if calls[0].grid is None:
            shape = tuple(calls[0].output.shape)
            how = " If it is tokens, say how they lie: grid='14x14+1'." if len(shape) == 3 else ""
            raise LayerError(self.name, f"its output {shape} has no grid that lies on the picture.{how} {LIST_THEM}")
        return calls


@dataclass(frozen=True)
class LayerSelection:
    """A layer specification, resolved against a model's modules: what to watch, and what to take from the trace."""

    items: tuple[Item, ...]

    @property
    def request(self) -> RecordingRequest:
        named = any(isinstance(item, Named) for item in self.items)
        return RecordingRequest(
            frozenset[str]().union(*(item.watched for item in self.items)), only_with_grid=not named
        )

    def matching_calls(self, trace: Trace) -> list[LayerCall]:
        """The calls meant, each once, in execution order."""
        chosen = {call for item in self.items for call in item.calls(trace)}
        return [call for call in trace.calls if call in chosen and check_unambiguous(call)]

    def with_layer(self, layer: str) -> LayerSelection:
        """The same selection and one more layer, by a name as it stands in a trace."""
        name, _, call = layer.partition("#")
        return LayerSelection((*self.items, Named(name, int(call) if call else None)))

    def names_explicitly(self, call: LayerCall) -> bool:
        """Whether the user named this very layer, rather than a group it belongs to."""
        return any(isinstance(item, Named) and item.name == call.module for item in self.items)


def parse_layers(spec: Any, model: nn.Module) -> LayerSelection:
    """Resolve a layer specification against the modules of `model`.

    `spec` is "every" (each convolution with a grid; the blocks where there are fewer than three), "convs", "blocks" (what
    the network repeats), "stages" (the last block of each grid size, or of each quarter where there is one size), "all" (every
    module with a grid), a name, "name#2" for a module's second call (and "blocks#1" for a module that has the name of a
    group), a glob ("layer4.*"), a module class or its name ("Conv2d"), a position in "every" (-1 is the last), a module of the
    model, or a list of these.

    Raises UnknownName for a name that matches nothing, UsageError for anything else.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> one, group = parse_layers(["0", "Conv2d"], net).items
    >>> one, sorted(group.names)
    (Named(name='0', index=None), ['0', '2'])
    """
    modules = {"": unwrapped(model), **dict(named_modules(model))}
    entries = spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not entries:
        raise UsageError("layers=[]: name a layer, or leave it out for the suggested one.")
    return LayerSelection(tuple(item_for(entry, modules) for entry in entries))


def item_for(entry: Any, modules: dict[str, nn.Module]) -> Item:
    match entry:
        case "every":
            return every(modules)
        case "convs":
            return group(convolutions(modules), "convs", modules)
        case "blocks" | "stages":
            return repeated(entry, modules)
        case "all":
            return Modules(frozenset(filter(None, modules)), "all")
        case bool():
            pass
        case int():
            return Position(every(modules), entry)
        case type() if issubclass(entry, nn.Module):
            names = frozenset(name for name, module in modules.items() if isinstance(module, entry))
            return group(names, entry.__name__, modules)
        case nn.Module():
            for name, module in modules.items():
                if module is entry:
                    return Named(name)
            raise UsageError(f"this {type(entry).__name__} is not a module of the model that is explained.")
        case str():
            return item_by_name(entry, modules)
    raise UsageError(f"layers={entry!r}: give a layer's name, a glob, a module class, a position or 'every'.")


def item_by_name(entry: str, modules: dict[str, nn.Module]) -> Item:
    name, _, call = entry.partition("#")
    name = re.sub(r"(^|\.)(_orig_mod|module)(?=\.)", "", name).lstrip(".") if name not in modules else name
    if name and name in modules:
        if call and not call.isdecimal():
            raise UsageError(f"layer '{entry}': the second call of a module is 'name#2'.")
        return Named(name, int(call) if call else None)
    if any(sign in entry for sign in "*?["):
        return group(frozenset(name for name in modules if fnmatchcase(name, entry)), entry, modules)
    if re.fullmatch(r"-?\d+", entry):  # "0" names a module of an nn.Sequential before it counts
        return Position(every(modules), int(entry))
    kinds = frozenset(name for name, module in modules.items() if type(module).__name__ == entry)
    return group(kinds, entry, modules)


def group(names: frozenset[str], given: str, modules: dict[str, nn.Module]) -> Modules:
    if not names:
        kinds = {type(module).__name__ for module in modules.values()}
        raise UnknownName("layer", given, [*filter(None, modules), *sorted(kinds)], hint=LIST_THEM)
    return Modules(names, given)


def every(modules: dict[str, nn.Module]) -> Modules:
    """The convolutions, or the blocks where there are fewer than three convolutions (as in a ViT)."""
    convs = names = convolutions(modules)
    if len(convs) < FEW:
        names = max(convs, blocks(modules), key=len)  # a small net of two convolutions is still that
    if not names:
        raise LayerError("every", f"the model has neither convolutions nor repeated blocks; name layers. {LIST_THEM}")
    return Modules(names, "every")


def convolutions(modules: dict[str, nn.Module]) -> frozenset[str]:
    return frozenset(name for name, module in modules.items() if isinstance(module, _ConvNd))


def repeated(word: str, modules: dict[str, nn.Module]) -> Item:
    """The blocks, or the last of each stage of them; for "stages" the convolutions where nothing is repeated."""
    names = blocks(modules) or (convolutions(modules) if word == "stages" else frozenset())
    if not names:
        raise LayerError(word, f"the model repeats no block; take 'convs' or 'all', or name layers. {LIST_THEM}")
    return Modules(names, word) if word == "blocks" else Stages(Modules(names, word))


def blocks(modules: dict[str, nn.Module]) -> frozenset[str]:
    """Modules that a network repeats: siblings of one class in a list or sequence, the innermost such."""
    siblings: dict[tuple[str, type], list[str]] = {}
    for name, module in modules.items():
        parent = name.rpartition(".")[0]
        in_list = isinstance(modules.get(parent), (nn.ModuleList, nn.Sequential))
        if name and in_list and module._modules and type(module) not in CONTAINERS:
            siblings.setdefault((parent, type(module)), []).append(name)
    repeated = {name for names in siblings.values() if len(names) > 1 for name in names}
    outer = {name[: dot.start()] for name in repeated for dot in re.finditer(r"\.", name)}
    return frozenset(repeated - outer)


def check_unambiguous(call: LayerCall) -> bool:
    """True; LayerError where the tokens of a layer could as well lie in another grid."""
    if call.grid is not None and call.grid.alternatives:
        texts = [format_grid(grid.shape, grid.prefix) for grid in (call.grid, *call.grid.alternatives)]
        raise LayerError(
            call.name,
            f"its {call.grid.cell_count + call.grid.prefix} tokens may be a grid of {' or '.join(texts)} (cells + tokens before "
            f"them); say which: grid='{texts[0]}' or --grid {texts[0]}",
        )
    return True


def check_hint_used(hint: GridHint | None, calls: Sequence[LayerCall]) -> None:
    """LayerError where a grid that the user gave fits none of the layers."""
    grids = [call.grid for call in calls if call.grid is not None]
    if hint is None or not grids or any(grid.source == hint.source for grid in grids):
        return
    read = format_grid(grids[-1].shape, grids[-1].prefix)
    raise LayerError(
        calls[-1].name,
        f"grid {hint} does not fit its output {tuple(calls[-1].output.shape)}, nor another layer's; "
        f"leave it out (it was read as {read}), or give cells and the tokens before them, as '14x14+1'.",
    )


def has_grid(call: LayerCall) -> bool:
    return call.grid is not None and min(call.grid.shape) >= 2
