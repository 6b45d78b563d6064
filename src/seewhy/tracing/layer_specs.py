"""Parse a layer specification, which is what users pass as `layers=` or `--layers`, against the modules of a model.

An entry is a group ("every"), a name ("layer4.1", "relu#2"), a glob ("layer4.*"), a module class or its name, a
position in "every", or a module. Names come first: "0" is the module of an `nn.Sequential` before it is a position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from seewhy.errors import LayerError, UnknownName, UsageError
from seewhy.tracing.layer_groups import find_blocks, find_convolutions
from seewhy.tracing.layer_selection import (
    LIST_LAYERS,
    LayerAtPosition,
    LayerSelection,
    LayerSelector,
    ModuleGroup,
    NamedLayer,
    StageEnds,
)
from seewhy.tracing.torch_private import COMPILED_CHILD
from seewhy.tracing.twin import named_modules, unwrap

OneLayer = str | int | nn.Module | type[nn.Module]
LayerSpec = OneLayer | Sequence[OneLayer] | None  # what `layers=` accepts
Modules = Mapping[str, nn.Module]

MIN_CONVOLUTIONS = 3  # with fewer, "every" means the blocks
# Prefixes that DataParallel and torch.compile add to names; the twin has none of these wrappers.
WRAPPER_PREFIX = re.compile(rf"(^|\.)({COMPILED_CHILD}|module)(?=\.)")


def parse_layers(spec: Any, model: nn.Module) -> LayerSelection:
    """Resolve a layer specification against the modules of `model`.

    Args:
        spec: One entry or a list of them: "every" (each convolution with a grid, or the blocks if there are fewer than
            three convolutions), "convs", "blocks" (the modules that the network repeats), "stages" (the last block of
            each grid size, or of each quarter if there is one size), "all" (every module with a grid), a name, "name#2"
            for the second call of a module ("blocks#1" for a module that has the name of a group), a glob ("layer4.*"),
            a module class or its name ("Conv2d"), a position in "every" (-1 is the last), or a module of the model.
        model: The model whose modules are selected.

    Raises:
        UnknownName: A name matches nothing.
        LayerError: The model has no layers of that group.
        UsageError: An entry is of none of these kinds.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> layer, group = parse_layers(["0", "Conv2d"], net).selectors
    >>> layer, sorted(group.names)
    (NamedLayer(name='0', number=None), ['0', '2'])
    """
    modules = {"": unwrap(model), **dict(named_modules(model))}
    entries = spec if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not entries:
        raise UsageError("layers=[] selects no layer; name at least one, or omit it for the suggested layer.")
    return LayerSelection(tuple(parse_entry(entry, modules) for entry in entries))


def parse_entry(entry: Any, modules: Modules) -> LayerSelector:
    match entry:
        case "every":
            return every_layer(modules)
        case "convs":
            return non_empty_group(find_convolutions(modules), "convs", modules)
        case "blocks":
            return ModuleGroup(repeated_modules("blocks", modules), "blocks")
        case "stages":
            return StageEnds(ModuleGroup(repeated_modules("stages", modules), "stages"))
        case "all":
            return ModuleGroup(frozenset(filter(None, modules)), "all")
        case bool():
            pass  # a bool is an int, but not a position
        case int():
            return LayerAtPosition(every_layer(modules), entry)
        case type() if issubclass(entry, nn.Module):
            names = frozenset(name for name, module in modules.items() if name and isinstance(module, entry))
            return non_empty_group(names, entry.__name__, modules)
        case nn.Module():
            for name, module in modules.items():
                if module is entry:
                    return NamedLayer(name)
            raise UsageError(
                f"this {type(entry).__name__} is not a module of the explained model; pass one of its modules."
            )
        case str():
            return parse_text(entry, modules)
    raise UsageError(f"layers={entry!r} is not a layer; pass a name, a glob, a module class, a position or 'every'.")


def parse_text(entry: str, modules: Modules) -> LayerSelector:
    """Resolve text that is not the name of a group: a module, else a glob, a position or the name of a class."""
    name, _, number = entry.partition("#")
    if name not in modules:
        name = WRAPPER_PREFIX.sub("", name).lstrip(".")
    if name and name in modules:
        if number and not number.isdecimal():
            raise UsageError(f"layer '{entry}': the text after '#' must be the number of a call, as in 'name#2'.")
        return NamedLayer(name, int(number) if number else None)
    if any(sign in entry for sign in "*?["):
        return non_empty_group(frozenset(name for name in modules if name and fnmatchcase(name, entry)), entry, modules)
    if re.fullmatch(r"-?\d+", entry):
        return LayerAtPosition(every_layer(modules), int(entry))
    instances = frozenset(name for name, module in modules.items() if name and type(module).__name__ == entry)
    return non_empty_group(instances, entry, modules)


def non_empty_group(names: frozenset[str], text: str, modules: Modules) -> ModuleGroup:
    """Return a group of modules. Raises UnknownName, with close matches, if it is empty."""
    if not names:
        classes = {type(module).__name__ for module in modules.values()}
        raise UnknownName("layer", text, [*filter(None, modules), *sorted(classes)], hint=LIST_LAYERS)
    return ModuleGroup(names, text)


def every_layer(modules: Modules) -> ModuleGroup:
    """Return the convolutions, or the blocks if the model has few convolutions, as a ViT does."""
    names = convolutions = find_convolutions(modules)
    if len(convolutions) < MIN_CONVOLUTIONS:
        names = max(convolutions, find_blocks(modules), key=len)  # a small network of two convolutions has no blocks
    if not names:
        raise LayerError("every", f"the model has neither convolutions nor repeated blocks; name layers. {LIST_LAYERS}")
    return ModuleGroup(names, "every")


def repeated_modules(group: str, modules: Modules) -> frozenset[str]:
    """Return the blocks. For "stages" of a model without blocks, return its convolutions."""
    names = find_blocks(modules) or (find_convolutions(modules) if group == "stages" else frozenset())
    if not names:
        raise LayerError(
            group, f"the model has no repeated blocks; use 'convs' or 'all', or name layers. {LIST_LAYERS}"
        )
    return names
