"""Find groups of modules in a model by its structure, without running it: its convolutions and its repeated blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from seewhy.tracing.torch_private import CONVOLUTION, child_table

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_convolutions(modules: Mapping[str, nn.Module]) -> frozenset[str]:
    """Return the names of the convolutions among `modules`."""
    return frozenset(name for name, module in modules.items() if isinstance(module, CONVOLUTION))


def is_pointwise(convolution: Any) -> bool:
    """Return True for a convolution that is a linear layer at each cell."""
    is_single = set(convolution.kernel_size) == {1} == set(convolution.stride)
    return is_single and convolution.groups == 1 and not convolution.transposed


def find_blocks(modules: Mapping[str, nn.Module]) -> frozenset[str]:
    """Return the names of the modules that a network repeats: siblings of one class in a list or sequence.

    Of nested repetitions the innermost are returned. `modules` maps the names of all modules, and "" to the model.
    """
    siblings: dict[tuple[str, type], list[str]] = {}
    for name, module in modules.items():
        parent = name.rpartition(".")[0]
        is_in_list = isinstance(modules.get(parent), (nn.ModuleList, nn.Sequential))
        if name and is_in_list and child_table(module) and type(module) not in CONTAINERS:
            siblings.setdefault((parent, type(module)), []).append(name)
    repeated = {name for names in siblings.values() if len(names) > 1 for name in names}
    ancestors = {name[: dot.start()] for name in repeated for dot in re.finditer(r"\.", name)}
    return frozenset(repeated - ancestors)
